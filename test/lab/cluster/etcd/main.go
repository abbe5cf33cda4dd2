// Command etcd is etcd as released. Its own main package lives in a module that
// cannot be required, so the lab has its three lines here. A distribution's etcd
// is often too old: streaming lists need 3.4.25 or 3.5.8.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }

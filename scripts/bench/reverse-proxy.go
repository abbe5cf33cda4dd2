// Go's httputil.ReverseProxy between TLS and TLS: what every peer of Holdfast
// stands on, to measure against in the same run.
//
//	reverse-proxy SERVER CA CERT KEY
//
// It listens on a free port of loopback with the same pair that it shows
// upstream, and prints the port.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
)

func main() {
	server, err := url.Parse(os.Args[1])
	check(err)
	ca, err := os.ReadFile(os.Args[2])
	check(err)
	pair, err := tls.LoadX509KeyPair(os.Args[3], os.Args[4])
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	proxy := httputil.NewSingleHostReverseProxy(server)
	proxy.Transport = &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}},
		MaxIdleConnsPerHost: 100,
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	serving := &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: roots, ClientAuth: tls.VerifyClientCertIfGiven, NextProtos: []string{"http/1.1"}}
	check(http.Serve(tls.NewListener(listener, serving), proxy))
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

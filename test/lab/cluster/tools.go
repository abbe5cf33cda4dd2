//go:build tools

// Package tools holds the programs of the lab's cluster in go.mod: nothing here
// is compiled, the imports keep `go mod tidy` from dropping them.
//
// Kubernetes is not meant to be required as a module: its staging modules
// (k8s.io/api and the rest) stand there as v0.0.0. The replace block of go.mod
// gives each the release that belongs to k8s.io/kubernetes; change them together.
package tools

import (
	_ "go.etcd.io/etcd/server/v3/etcdmain"
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager"
	_ "k8s.io/kubernetes/cmd/kube-proxy"
	_ "k8s.io/kubernetes/cmd/kube-scheduler"
	_ "k8s.io/kubernetes/cmd/kubeadm"
	_ "k8s.io/kubernetes/cmd/kubectl"
	_ "k8s.io/kubernetes/cmd/kubelet"
)

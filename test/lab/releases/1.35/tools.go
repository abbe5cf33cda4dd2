//go:build tools

// Package tools holds the programs of an older release in go.mod, as cluster/tools.go does for the lab's own.
package tools

import (
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kubelet"
)

//go:build tools

// Package tools holds metrics-server in go.mod, with the releases of Kubernetes'
// libraries that the lab's cluster has: what that has built is not built again.
package tools

import _ "sigs.k8s.io/metrics-server/cmd/metrics-server"

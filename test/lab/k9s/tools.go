//go:build tools

// Package tools holds k9s in go.mod: nothing here is compiled, the import keeps
// `go mod tidy` from dropping it.
package tools

import _ "github.com/derailed/k9s/cmd"

// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"embed"
	"io/fs"
	"path"
	"sync"
)

//go:embed builtin
var builtinFS embed.FS

// builtin is a file that the package brings along, by the path that <path>
// names: abi/3.0, tunables/global, abstractions/base, …
func builtin(p string) ([]byte, bool) {
	if path.Clean(p) != p || p == "" {
		return nil, false
	}
	data, err := fs.ReadFile(builtinFS, "builtin/"+p)
	return data, err == nil
}

// Builtin are the files that the package brings along, with the paths that
// <path> in an include or abi statement uses.
func Builtin() fs.FS {
	sub, err := fs.Sub(builtinFS, "builtin")
	if err != nil {
		panic(err) // the directory is part of the binary
	}
	return sub
}

var defaultFeatures = sync.OnceValue(func() *Features {
	data, ok := builtin("abi/default")
	if !ok {
		panic("apparmor: abi/default is not part of the binary")
	}
	f, err := ParseFeatures(string(data))
	if err != nil {
		panic(err)
	}
	return f
})

// DefaultFeatures are those of a policy that declares no abi: what kernel 5.4
// with Ubuntu's patches had.
//
// Source: parser/default_features.c, default_features_abi.
func DefaultFeatures() *Features { return defaultFeatures() }

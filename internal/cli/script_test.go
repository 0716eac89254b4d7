// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"flag"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "write what commands printed into the golden files")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"palisade": func() { os.Exit(Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// TestScript runs the command line as a person would, one txtar file a subject.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			// The corpus and the module are found from the tests' own folder.
			wd, err := os.Getwd()
			env.Setenv("MODULE", wd+"/../..")
			return err
		},
	})
}

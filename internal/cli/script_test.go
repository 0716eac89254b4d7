// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/palisade-sec/palisade/internal/container"
	"github.com/palisade-sec/palisade/internal/delegate"
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
		Condition:           condition,
		Setup: func(env *testscript.Env) error {
			// The corpus and the module are found from the tests' own folder.
			wd, err := os.Getwd()
			env.Setenv("MODULE", wd+"/../..")
			return err
		},
	})
}

// condition answers what scripts ask with [name]: container tells whether a
// container can be run here.
func condition(name string) (bool, error) {
	if name == "root" {
		return os.Geteuid() == 0, nil
	}
	if name != "container" {
		return false, fmt.Errorf("unknown condition %q", name)
	}
	if _, err := delegate.FindRuntime(""); err != nil || os.Geteuid() != 0 {
		return false, nil
	}
	self, err := os.Executable()
	if err != nil {
		return false, err
	}
	return container.Static(self)
}

// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/palisade-sec/palisade/runtime/container"
	"github.com/palisade-sec/palisade/runtime/delegate"
)

var update = flag.Bool("update", false, "write what commands printed into the golden files")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"palisade": func() { os.Exit(Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// TestScript runs the command line as a person would, one txtar file a subject.
func TestScript(t *testing.T) {
	lastStep := buildInit(t)
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
			// A program by the name of palisade is the test itself, and has no
			// palisade-init beside it.
			env.Setenv("PALISADE_INIT", lastStep)
			return err
		},
	})
}

// buildInit builds the program that containers are confined with.
func buildInit(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "palisade-init")
	cmd := exec.Command("go", "build", "-o", path, "../../cmd/palisade-init")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build palisade-init: %v\n%s", err, out)
	}
	return path
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

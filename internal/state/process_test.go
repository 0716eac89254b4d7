// SPDX-License-Identifier: Apache-2.0

package state

import (
	"os"
	"os/exec"
	"testing"

	"github.com/palisade-sec/palisade/internal/await"
)

func TestProcess(t *testing.T) {
	self, err := FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if !self.Alive() {
		t.Error("this process has ended")
	}
	if later := (Process{self.PID, self.Start + 1}); later.Alive() {
		t.Error("another process with the number of this one is alive")
	}
	// The name of a program may look like the rest of the line.
	odd := t.TempDir() + "/a) Z 1 1"
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(sleep, odd); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(odd, "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := FindProcess(cmd.Process.Pid)
	if err != nil || !p.Alive() || p.Start < self.Start {
		t.Errorf("%+v, %v", p, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// A zombie is over, too.
	await.True(t, "the end of a killed process", func() bool { return !p.Alive() })
	_ = cmd.Wait()
	if p.Alive() || (*Process)(nil).Alive() {
		t.Error("nobody is alive")
	}
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package relabel

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/palisade-sec/palisade/internal/await"
	"github.com/palisade-sec/palisade/selinux"
)

const envRelabel = "PALISADE_TEST_RELABEL"

// TestMain lets the test binary be a run that can be killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv(envRelabel); dir != "" {
		con, err := selinux.ParseContext(os.Getenv(envRelabel + "_CONTEXT"))
		if err == nil {
			_, err = Relabel(context.Background(), dir, con, Options{})
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestKill kills runs at random moments, each with another label than the last.
// What they leave is marked as done only when it is, and the next run finishes it.
func TestKill(t *testing.T) {
	kills := 12
	if s := os.Getenv("SVIRT_ENGINE_KILLS"); s != "" {
		var err error
		if kills, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	dir := labelled(t)
	root := filepath.Join(dir, "volume")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	tree(t, root, 20, 100)
	wrong := func(want string) (n int) {
		err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if got, err := getLabel(path, false); err != nil || got != want {
				n++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	early, done := 0, 0
	for i := range kills {
		want := fmt.Sprintf("system_u:object_r:container_file_t:s0:c%d,c%d", i, i+1)
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), envRelabel+"="+root, envRelabel+"_CONTEXT="+want)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Some fall before the first file, the others when a random one has its label:
		// the run is somewhere behind it then, or over.
		if i%4 > 0 {
			path := filepath.Join(root, fmt.Sprintf("d%[1]d/e%[1]d/f%[2]d", rand.IntN(10), rand.IntN(100)))
			await.True(t, "the label of "+path, func() bool { got, err := getLabel(path, false); return err == nil && got == want })
		} else {
			await.Moment(60 * time.Millisecond)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		left := wrong(want)
		if marker(root) == want {
			done++
			if left > 0 {
				t.Fatalf("kill %d: marked as done, and %d files have another label", i, left)
			}
		} else if left > 0 {
			early++
		}
		if c, err := Relabel(context.Background(), root, parse(t, want), Options{}); err != nil || c.Failed > 0 {
			t.Fatalf("kill %d: the next run: %+v, %v", i, c, err)
		}
		if left := wrong(want); left > 0 || marker(root) != want {
			t.Fatalf("kill %d: the next run left %d files", i, left)
		}
	}
	t.Logf("%d killed before the end, %d after it", early, done)
}

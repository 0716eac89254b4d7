// SPDX-License-Identifier: Apache-2.0

//go:build linux

package apparmor

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/apparmor/blob"
	"github.com/palisade-sec/palisade/apparmor/securityfs"
	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/internal/vmtest"
)

const refusable = `profile refused /bin/refused* flags=(attach_disconnected) {
  set rlimit nofile <= 7,
  capability chown,
  /etc/** r,
  /bin/a px -> target,
  signal,
}
`

// TestKernelRefusals damages policy and gives it to the kernel: the refusal has to
// name the damaged part and the line of the source that it comes from.
func TestKernelRefusals(t *testing.T) {
	vmtest.Run(t, vmtest.Config{LSM: "apparmor"}, func(t *testing.T) {
		const file = "/tmp/refused.profile"
		if err := os.WriteFile(file, []byte(refusable), 0o600); err != nil {
			t.Fatal(err)
		}
		var target targetFlags
		var errs bytes.Buffer
		e := &answer.Env{Stderr: &errs}
		p, err := target.openPolicy(e, file)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := p.set.Profile("refused")
		whole, err := blob.Encode(b)
		if err != nil {
			t.Fatal(err)
		}
		var kernel securityfs.FS
		if err := kernel.Replace(whole); err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			field  string // to damage
			damage func(part []byte)
			said   string // what the refusal says of the place
			caret  string // below which text of the source
		}{
			{"mode", func(b []byte) { binary.LittleEndian.PutUint32(b[1:], 77) }, "mode", "attach_disconnected"},
			{"audit", func(b []byte) { b[0] = 0x55 }, "behind mode", "attach_disconnected"},
			{"the length of resource limits", func(b []byte) { b[len(b)-2] = 99 }, "resource limits", "set rlimit nofile"},
			{"resource limits, entry 7", func(b []byte) { b[0] = 2 }, "resource limits", "set rlimit nofile"},
			{"capabilities, logged", func(b []byte) { b[0] = 3 }, "capabilities", "capability chown"},
			{"file automaton, header of the tables", func(b []byte) { b[0] = 0 }, "file automaton", "refused"},
			{"file automaton, table BASE, entry 5", func(b []byte) { b[1] = 0xff }, "file automaton", "refused"},
			{"file automaton, exec target 0", func(b []byte) { b[len(b)-1] = 'x' }, "exec target", "/bin/a px"},
			{"policy automaton, table DEFAULT, entry 3", func(b []byte) { b[0] = 0xff }, "policy automaton", "refused"},
		} {
			data, found := bytes.Clone(whole), false
			for i := range data {
				if at := blob.At(whole, i); at.Field == tt.field {
					tt.damage(data[at.Start:at.End])
					found = true
					break
				}
			}
			if !found || bytes.Equal(data, whole) {
				t.Errorf("%s: nothing was damaged", tt.field)
				continue
			}
			err := kernel.Replace(data)
			var le *securityfs.LoadError
			if !errors.As(err, &le) || le.Info == "" || le.Offset < 0 {
				t.Errorf("%s: %v", tt.field, err)
				continue
			}
			errs.Reset()
			err = p.refused(e, data, err)
			t.Logf("%s: %v\n%s", tt.field, err, &errs)
			if !strings.Contains(err.Error(), tt.said) {
				t.Errorf("%s: the error does not name %s: %v", tt.field, tt.said, err)
			}
			lines := strings.Split(errs.String(), "\n")
			if len(lines) < 3 || !strings.HasPrefix(lines[0], file+":") || !strings.Contains(lines[0], "AA-REFUSED") {
				t.Errorf("%s: shown is %q", tt.field, lines)
				continue
			}
			column := strings.Index(lines[2], "^")
			if column < 0 || !strings.HasPrefix(lines[1][column:], tt.caret) {
				t.Errorf("%s: the caret is not below %q:\n%s", tt.field, tt.caret, &errs)
			}
		}

		// A format that this kernel does not know, by the command.
		var out bytes.Buffer
		errs.Reset()
		cmd := Command(&answer.Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs})
		cmd.SilenceUsage, cmd.SilenceErrors = true, true
		cmd.SetArgs([]string{"load", "--format", "permstable", file})
		code := answer.Report(&errs, cmd.Execute())
		t.Logf("other features: exit %d\n%s", code, &errs)
		for _, want := range []string{file + ":1:9: error: the kernel refuses profile \"refused\": failed to unpack", "profile refused /bin/refused*", "^^^^^^^", "permission table"} {
			if code != 125 || !strings.Contains(errs.String(), want) {
				t.Errorf("other features: exit %d, no %q in\n%s", code, want, &errs)
			}
		}
	})
}

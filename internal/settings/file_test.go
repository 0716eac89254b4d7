// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// configs are files of a host, and what their refusal says; seeds of the fuzz target.
var configs = []struct{ in, want string }{
	{`{}`, ""},
	{`{"runtime":"/usr/sbin/runc","policy":"strict","on_mismatch":"warn","require":["selinux","apparmor"],"state":"/s"}`, ""},
	{`{"require":null}`, ""},
	{`{"policy":"strict"} {"policy":"default"}`, "after the document"},
	{`{"policy":"strict","policy":"default"}`, "duplicate"},
	{`{"policy":"strict","Policy":"default"}`, `is not spelled "policy"`},
	{"{\"\u017ftate\":\"/s\"}", `is not spelled "state"`},
	{`{"polcy":"strict"}`, `did you mean "policy"?`},
	{`{"runtime":"runc"}`, "want an absolute path"},
	{`{"emulator":"lxc"}`, "want an absolute path"},
	{`{"on_mismatch":"ignore"}`, "want kill or warn"},
	{`{"require":["selinx"]}`, "want selinux or apparmor"},
	{`{"policy":null}`, "found null"},
	{``, "line 1"},
	{`null`, "found null"},
}

func TestRead(t *testing.T) {
	for _, tt := range configs {
		path := filepath.Join(t.TempDir(), "oci.json")
		if err := os.WriteFile(path, []byte(tt.in), 0o644); err != nil {
			t.Fatal(err)
		}
		c := Settings{Policy: "default", OnMismatch: "kill"}
		err := read(path, &c)
		if (err != nil) != (tt.want != "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.in, err, tt.want)
		}
		if tt.in == `{}` && c.Policy != "default" {
			t.Error("a default is gone")
		}
	}
	c := Settings{}
	if err := read(filepath.Join(t.TempDir(), "none"), &c); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if err := read(t.TempDir(), &c); err == nil {
		t.Error("a folder was read")
	}
}

// FuzzConfig wants what is accepted to be one of the settings there are.
func FuzzConfig(f *testing.F) {
	for _, tt := range configs {
		f.Add([]byte(tt.in))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var c Settings
		if decode(raw, &c) != nil {
			return
		}
		if c.OnMismatch != "" && c.OnMismatch != "kill" && c.OnMismatch != "warn" || c.Runtime != "" && c.Runtime[0] != '/' {
			t.Errorf("%s: %+v", raw, c)
		}
	})
}

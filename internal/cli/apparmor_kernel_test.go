// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/apparmor"
	"github.com/palisade-sec/palisade/internal/vmtest"
)

// TestKernelAppArmorVerbs loads, asks, lists and removes with the command line
// in a kernel that enforces AppArmor.
func TestKernelAppArmorVerbs(t *testing.T) {
	vmtest.Run(t, vmtest.Config{LSM: "apparmor"}, func(t *testing.T) {
		run := func(stdin string, args ...string) (int, string, string) {
			var out, errs bytes.Buffer
			code := Main(append([]string{"apparmor"}, args...), strings.NewReader(stdin), &out, &errs)
			return code, out.String(), errs.String()
		}
		// The containers' profile, as it is printed, and again.
		code, generated, errs := run("", "generate")
		if code != 0 {
			t.Fatal(errs)
		}
		for range 2 {
			if code, _, errs := run(generated, "load", "-"); code != 0 {
				t.Fatal(errs)
			}
			if _, out, _ := run("", "status"); !strings.Contains(out, "docker-default (enforce)") || !strings.Contains(out, "1 profile") {
				t.Fatalf("status: %s", out)
			}
		}
		if code, _, errs := run("", "unload", apparmor.DockerDefaultName); code != 0 {
			t.Fatal(errs)
		}

		const text = "profile web { /etc/** r, deny /etc/shadow r, network inet stream, }\nprofile :tenant:db { /var/** rw, }\n"
		if err := os.WriteFile("/tmp/web.profile", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			code int
			want string // in what is printed
			args []string
		}{
			{0, "AppArmor is enabled; this task is unconfined", []string{"status"}},
			{0, "loaded web", []string{"load", "/tmp/web.profile"}},
			{125, "already loaded", []string{"load", "--add", "/tmp/web.profile"}},
			{0, "loaded :tenant:db", []string{"load", "/tmp/web.profile"}},
			{0, "web (enforce)", []string{"status"}},
			{0, "namespace tenant", []string{"status"}},
			{0, "profile web (enforce)", []string{"decode", "kernel:web"}},
			{0, "yes: read /etc/hosts", []string{"decide", "--profile", "kernel:web", "web", "/etc/hosts r"}},
			{1, "no: read /etc/shadow", []string{"decide", "--profile", "kernel:web", "web", "/etc/** r"}},
			{0, "", []string{"diff", "/tmp/web.profile", "/tmp/web.profile"}},
			{0, "removed web", []string{"unload", "web", ":tenant:db"}},
			{1, "profile is not loaded", []string{"unload", "web"}},
			{0, "0 profiles", []string{"status"}},
		} {
			code, out, errs := run("", tt.args...)
			if code != tt.code || !strings.Contains(out+errs, tt.want) {
				t.Errorf("%v: exit %d, want %d with %q\n%s%s", tt.args, code, tt.code, tt.want, out, errs)
			}
		}
	})
}

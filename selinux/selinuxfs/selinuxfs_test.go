// SPDX-License-Identifier: Apache-2.0

//go:build linux

package selinuxfs

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"syscall"
	"testing"

	"github.com/palisade-sec/palisade/internal/debian"
	"github.com/palisade-sec/palisade/internal/vmtest"
)

func TestOpenElsewhere(t *testing.T) {
	for _, dir := range []string{t.TempDir(), "/nosuch"} {
		if _, err := Open(dir); !errors.Is(err, ErrNotSELinux) {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

func TestEncode(t *testing.T) {
	if got, want := encode("a b%/ü+.x"), "a%20b%25%2f%c3%bc%2b.x"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestKernel(t *testing.T) {
	var files []vmtest.File
	if !vmtest.InGuest() {
		files = []vmtest.File{{Guest: "/policy", Host: debian.Policy(t, "default", nil).Policy}}
	}
	vmtest.Run(t, vmtest.Config{LSM: "selinux", Files: files}, inKernel)
}

func inKernel(t *testing.T) {
	s, err := Open("")
	if err != nil {
		t.Fatal(err)
	}
	policy, err := os.ReadFile("/policy")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Load(policy[:1000]); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a policy that is cut off: %v", err)
	}
	if err := s.Load(policy); err != nil {
		t.Fatal(err)
	}
	if back, err := s.Policy(); err != nil || !bytes.Equal(back[:16], policy[:16]) {
		t.Errorf("the policy read back: %d bytes, %v", len(back), err)
	}
	if mls, err := s.MLS(); err != nil || !mls {
		t.Errorf("MLS %v, %v", mls, err)
	}
	if v, err := s.MaxPolicyVersion(); err != nil || v < 33 {
		t.Errorf("version %d, %v", v, err)
	}
	if on, err := s.Enforcing(); err != nil || on {
		t.Errorf("enforcing %v, %v", on, err)
	}
	booleans(t, s)
	file, err := s.Class("file")
	if err != nil {
		t.Fatal(err)
	}
	const guest, other = "system_u:system_r:svirt_t:s0:c1,c2", "system_u:object_r:svirt_image_t:s0:c3,c4"
	d, err := s.Access(guest, "system_u:object_r:svirt_image_t:s0:c1,c2", file)
	o, err2 := s.Access(guest, other, file)
	if err != nil || err2 != nil || d.Allowed&^o.Allowed == 0 || d.Decided != 1<<32-1 || o.Allowed == 0 {
		t.Errorf("access %+v, to the other's %+v, %v, %v", d, o, err, err2)
	}
	if _, err := s.Access("a:b:c:s0", other, file); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("no context: %v", err)
	}
	for _, tt := range []struct {
		ask  func() (string, error)
		want string
	}{
		{func() (string, error) { return s.Canonical("system_u:system_r:svirt_t:s0:c2,c1") }, guest},
		{func() (string, error) {
			class, err := s.Class("fifo_file")
			if err != nil {
				return "", err
			}
			return s.Create("system_u:system_r:init_t:s0", "system_u:object_r:device_t:s0", class, "initctl")
		}, "system_u:object_r:initctl_t:s0"},
		{func() (string, error) { return s.Member(guest, other, file) }, "system_u:object_r:svirt_image_t:s0:c1,c2"},
		{func() (string, error) { return s.Relabel(guest, other, file) }, "system_u:object_r:svirt_image_t:s0:c1,c2"},
		{func() (string, error) { return ProcessContext(0) }, "system_u:system_r:kernel_t:s0"},
	} {
		if got, err := tt.ask(); err != nil || got != tt.want {
			t.Errorf("%q, %v, want %q", got, err, tt.want)
		}
	}
	if c, err := FileContext("/sys/fs/selinux"); err != nil || c != "system_u:object_r:security_t:s0" {
		t.Errorf("selinuxfs has the label %q, %v", c, err)
	}
}

func booleans(t *testing.T, s *FS) {
	t.Helper()
	all, err := s.Booleans()
	if err != nil || len(all) < 100 {
		t.Fatalf("%d booleans, %v", len(all), err)
	}
	want := map[string]bool{"virt_use_nfs": !all["virt_use_nfs"], "virt_use_samba": !all["virt_use_samba"]}
	if err := s.SetBooleans(want); err != nil {
		t.Fatal(err)
	}
	now, err := s.Booleans()
	for name, v := range want {
		if now[name] != v {
			t.Errorf("%s is %v, %v", name, now[name], err)
		}
	}
	if err := s.SetBooleans(map[string]bool{"nosuch": true, "virt_use_nfs": all["virt_use_nfs"]}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an unknown boolean: %v", err)
	}
	if again, _ := s.Booleans(); again["virt_use_nfs"] != want["virt_use_nfs"] {
		t.Error("a boolean was set together with one that is not there")
	}
}

// SPDX-License-Identifier: Apache-2.0

package hostfacts

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"testing"

	"github.com/palisade-sec/palisade/apparmor"
	"github.com/palisade-sec/palisade/apparmor/blob"
	"github.com/palisade-sec/palisade/apparmor/compile"
	"github.com/palisade-sec/palisade/apparmor/securityfs"
	"github.com/palisade-sec/palisade/internal/debian"
	"github.com/palisade-sec/palisade/internal/hostfacts/bpflsm"
	"github.com/palisade-sec/palisade/internal/vmtest"
	"github.com/palisade-sec/palisade/selinux/container"
	"github.com/palisade-sec/palisade/target"
)

// debianOrder is CONFIG_LSM of Debian's kernel. The kernel takes what it has
// of it, and of the modules that exclude each other the first. With
// security=selinux it leaves out the others of these, as selinuxOrder does.
const (
	debianOrder  = "lsm=landlock,lockdown,yama,loadpin,safesetid,integrity,apparmor,selinux,smack,tomoyo,bpf"
	selinuxOrder = "lsm=landlock,lockdown,yama,loadpin,safesetid,integrity,selinux,bpf"
)

func TestKernelStatusAppArmor(t *testing.T) {
	vmtest.Run(t, vmtest.Config{Cmdline: debianOrder}, func(t *testing.T) {
		s := Read(context.Background(), Options{LoadLSM: bpflsm.Load})
		checkPreset(t, s, "debian-12-apparmor")
		if s.AppArmor.State != target.Enforcing || len(s.AppArmor.Features) < 25 || s.AppArmor.Features["domain/stack"] != "yes" {
			t.Errorf("AppArmor: %+v", s.AppArmor)
		}
		if s.AppArmor.DockerDefault != target.No || s.AppArmor.Parser != "" {
			t.Errorf("AppArmor: %+v", s.AppArmor)
		}
		if s.SELinux.State == target.Enforcing || s.SELinux.Mode != "disabled" || s.SELinux.Enable == "" {
			t.Errorf("SELinux: %+v", s.SELinux)
		}
		if s.BPFLSM.Loads != target.Yes {
			t.Errorf("BPF-LSM: %+v", s.BPFLSM)
		}
		checkProfiles(t)
	})
}

func TestKernelStatusSELinux(t *testing.T) {
	var files []vmtest.File
	if !vmtest.InGuest() {
		files = []vmtest.File{
			{Guest: "/plain", Host: debian.Policy(t, "default", nil).Policy},
			{Guest: "/containers", Host: debian.Policy(t, "default", map[string][]byte{container.Name: container.Module()}).Policy},
			{Guest: "/etc/selinux/config", Data: []byte("SELINUX=enforcing\nSELINUXTYPE=default\n")},
		}
	}
	vmtest.Run(t, vmtest.Config{Cmdline: selinuxOrder, Files: files}, func(t *testing.T) {
		// In the order of a boot: no policy, permissive, with the types of
		// containers, enforcing.
		s := Read(context.Background(), Options{LoadLSM: bpflsm.Load})
		if s.SELinux.State != target.Off || s.SELinux.Enable == "" || s.SELinux.ContainerTypes != target.No {
			t.Errorf("without a policy: %+v", s.SELinux)
		}
		checkForLaunch(t, s)
		load(t, "/plain")
		s = Read(context.Background(), Options{LoadLSM: bpflsm.Load})
		if s.SELinux.State != target.Off || s.SELinux.Mode != "permissive" || s.SELinux.MLS != target.Yes || s.SELinux.ContainerTypes != target.No || s.SELinux.PolicyName != "default" {
			t.Errorf("Debian's policy: %+v", s.SELinux)
		}
		checkForLaunch(t, s)
		if got := ForLaunch().SELinux; got.On() != target.Yes || got.Enforces() != target.No {
			t.Errorf("permissive, for a container: %+v", got)
		}
		if err := os.WriteFile("/sys/fs/selinux/enforce", []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
		s = Read(context.Background(), Options{LoadLSM: bpflsm.Load})
		checkPreset(t, s, "debian-12-selinux")
		load(t, "/containers")
		s = Read(context.Background(), Options{LoadLSM: bpflsm.Load})
		if s.SELinux.State != target.Enforcing || s.SELinux.ContainerTypes != target.Yes || s.SELinux.PolicyVersion != 33 {
			t.Errorf("with container types: %+v", s.SELinux)
		}
		checkForLaunch(t, s)
		if got := ForLaunch(); got.SELinux.Enforces() != target.Yes || got.AppArmor.On() != target.No {
			t.Errorf("enforcing, for a container: %+v", got)
		}
		if s.AppArmor.State == target.Enforcing {
			t.Errorf("AppArmor beside SELinux: %+v", s.AppArmor)
		}
	})
}

// checkProfiles loads profiles of each mode, and wants those alone to count that
// deny something.
func checkProfiles(t *testing.T) {
	t.Helper()
	var kernel securityfs.FS
	features, err := kernel.Features()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, flags string
		enforces    target.Answer
	}{
		{"enforcing", "", target.Yes},
		{"two words", "", target.Yes},
		{"killing", "flags=(kill)", target.Yes},
		{"complaining", "flags=(complain)", target.No},
		{"as-if-none", "flags=(unconfined)", target.No},
	} {
		text := fmt.Sprintf("profile %q %s {\n  file,\n}\n", c.name, c.flags)
		file, diags := apparmor.Parse(c.name, []byte(text))
		if err := diags.Err(); err != nil {
			t.Fatal(err)
		}
		resolved, diags := apparmor.Resolve(file, apparmor.Env{Kernel: features, ABI: features, SkipExecCheck: true})
		if err := diags.Err(); err != nil {
			t.Fatal(err)
		}
		compiled, diags := compile.New(compile.Options{Kernel: features}).Compile(resolved)
		if err := diags.Err(); err != nil {
			t.Fatal(err)
		}
		for _, p := range compiled.Profiles {
			data, err := blob.Encode(p.Blob)
			if err != nil {
				t.Fatal(err)
			}
			if err := kernel.Load(data); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
		}
		a := ForLaunch().AppArmor
		if got := a.Enforces(c.name); a.Has(c.name) != target.Yes || got != c.enforces {
			t.Errorf("%s: loaded %v, enforces %v, want %v: %v", c.name, a.Has(c.name), got, c.enforces, a.Loaded)
		}
	}
	if a := ForLaunch().AppArmor; a.Has("gone") != target.No || a.Enforces("gone") != target.No {
		t.Errorf("a profile that is not there: %+v", a)
	}
	checkForLaunch(t, Read(context.Background(), Options{Quick: true}))
}

func load(t *testing.T, file string) {
	t.Helper()
	policy, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/sys/fs/selinux/load", policy, 0); err != nil {
		t.Fatal(err)
	}
}

// checkPreset compares what the kernel says with what the preset of its
// distribution says.
func checkPreset(t *testing.T, s *Status, name string) {
	t.Helper()
	checkForLaunch(t, s)
	want, _ := target.Preset(name)
	got := s.Target()
	if !reflect.DeepEqual(got.LSMs, want.LSMs) {
		t.Errorf("%s: modules %v, the preset has %v", name, got.LSMs, want.LSMs)
	}
	if got.Kernel.Major != want.Kernel.Major || got.Kernel.Minor != want.Kernel.Minor || got.Arch != want.Arch {
		t.Errorf("%s: kernel %+v", name, got.Kernel)
	}
	// The guest has no file with the kernel's configuration, so that
	// SELinux counts as absent where it is not active; AppArmor tells.
	if s.Kernel.Config == "" {
		if want.SELinux.State == target.Off {
			want.SELinux.State = target.Absent
		}
	}
	for _, c := range []struct{ got, want any }{
		{got.SELinux, want.SELinux},
		{got.AppArmor.State, want.AppArmor.State},
		{got.Landlock.ABI, want.Landlock.ABI},
		{got.Seccomp, want.Seccomp},
		{got.BPFLSM, want.BPFLSM},
		{got.UserNamespaces.Unprivileged, want.UserNamespaces.Unprivileged},
		{got.Cgroup.Mode, want.Cgroup.Mode},
		{got.Lockdown, want.Lockdown},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("%s: %+v, the preset has %+v", name, c.got, c.want)
		}
	}
}

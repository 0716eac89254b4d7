// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ss

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/debian"
	"github.com/palisade-sec/palisade/internal/vmtest"
)

// xpermModule gives the kernel's own domain files whose ioctl numbers are listed
// in several ways. xp_c_t has no rule that allows a number, but one that audits.
const xpermModule = `
(type xp_a_t) (type xp_b_t) (type xp_c_t) (type xp_d_t)
(typeattribute xp_files)
(typeattributeset xp_files (xp_a_t xp_b_t xp_c_t xp_d_t))
(typeattributeset file_type (xp_a_t xp_b_t xp_c_t xp_d_t))
(roletype object_r xp_a_t) (roletype object_r xp_b_t) (roletype object_r xp_c_t) (roletype object_r xp_d_t)
(allow kernel_t xp_files (file (ioctl read write open getattr)))
(allowx kernel_t xp_a_t (ioctl file (0x5402 (range 0x5410 0x5420))))
(allowx kernel_t xp_b_t (ioctl file ((range 0x8800 0x8aff))))
(allowx domain xp_b_t (ioctl file (0x1234)))
(dontauditx kernel_t xp_b_t (ioctl file (0x1235)))
(auditallowx kernel_t xp_c_t (ioctl file (0x5402)))
`

// TestKernelXPerms tries ioctls in an enforcing kernel: selinuxfs has no question
// for extended permissions.
func TestKernelXPerms(t *testing.T) {
	var files []vmtest.File
	if !vmtest.InGuest() {
		files = []vmtest.File{{Guest: "/policy", Host: debian.Policy(t, "default", map[string][]byte{"xperm": []byte(xpermModule)}).Policy}}
	}
	vmtest.Run(t, vmtest.Config{LSM: "selinux", Files: files}, func(t *testing.T) {
		data, err := os.ReadFile("/policy")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(selinuxfs+"/load", data, 0); err != nil {
			t.Fatal(err)
		}
		s := loadServer(t, data)
		if err := errors.Join(os.Mkdir("/x", 0o755), unix.Mount("tmpfs", "/x", "tmpfs", 0, "")); err != nil {
			t.Fatal(err)
		}
		source := mustParse(t, s, "system_u:system_r:kernel_t:s0")
		fds := map[string]int{}
		for _, typ := range []string{"xp_a_t", "xp_b_t", "xp_c_t", "xp_d_t"} {
			label := "system_u:object_r:" + typ + ":s0"
			f, err := os.Create("/x/" + typ)
			if err == nil {
				err = unix.Setxattr(f.Name(), "security.selinux", []byte(label+"\x00"), 0)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			fds[label] = int(f.Fd())
		}
		if err := os.WriteFile(selinuxfs+"/enforce", []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
		asked, allowed, denied := 0, 0, 0
		for label, fd := range fds {
			target := mustParse(t, s, label)
			// 0x5452 and the like are not asked about: they are no ioctl permission.
			for _, number := range []uint16{
				0x1233, 0x1234, 0x1235, 0x5402, 0x5403, 0x540f, 0x5410, 0x5415, 0x5420, 0x5422, 0x87ff, 0x8800, 0x8801, 0x8933, 0x8a00, 0x8aff, 0x8b00, 0xffff,
			} {
				err := ioctl(fd, number)
				got := s.DecideX(source, target, s.Class("file"), Ioctl, number).Allowed
				if want := !errors.Is(err, syscall.EACCES); got != want {
					t.Errorf("%s 0x%04x: allowed %t here, the kernel says %v", label, number, got, err)
				}
				asked++
				if got {
					allowed++
				} else {
					denied++
				}
			}
		}
		t.Logf("%d ioctls: %d allowed, %d denied", asked, allowed, denied)
		if allowed < 10 || denied < 10 {
			t.Error("one-sided")
		}
	})
}

func ioctl(fd int, number uint16) error {
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), uintptr(number), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

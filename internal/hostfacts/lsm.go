// SPDX-License-Identifier: Apache-2.0

package hostfacts

import (
	"errors"
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sysLSMListModules is lsm_list_modules(2), Linux 6.8, the same number on every
// architecture.
const sysLSMListModules = 461

// lsmNames are the numbers of include/uapi/linux/lsm.h.
var lsmNames = map[uint64]string{
	100: "capability", 101: "selinux", 102: "smack", 103: "tomoyo", 104: "apparmor",
	105: "yama", 106: "loadpin", 107: "safesetid", 108: "lockdown", 109: "bpf",
	110: "landlock", 111: "ima", 112: "evm", 113: "ipe",
}

// lsmList is the active modules in order and where the list was read.
func (r *reader) lsmList() ([]string, string, error) {
	var errs []error
	if r.security != "" {
		text, err := readFile(r.security + "/lsm")
		if err == nil {
			return splitList(text), "/sys/kernel/security/lsm", nil
		}
		errs = append(errs, err)
	} else {
		errs = append(errs, r.securityErr)
	}
	if r.live {
		list, err := lsmListModules()
		if err == nil {
			return list, "lsm_list_modules", nil
		}
		errs = append(errs, err)
	}
	return nil, "", errors.Join(errs...)
}

// lsmListModules asks without privilege and without securityfs.
func lsmListModules() ([]string, error) {
	var ids [64]uint64
	size := uint32(unsafe.Sizeof(ids))
	n, _, errno := unix.Syscall(sysLSMListModules, uintptr(unsafe.Pointer(&ids[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return nil, fmt.Errorf("lsm_list_modules: %w", errno)
	}
	list := []string{}
	for _, id := range ids[:min(int(n), len(ids))] {
		name, ok := lsmNames[id]
		if !ok {
			name = fmt.Sprintf("lsm-%d", id)
		}
		list = append(list, name)
	}
	return list, nil
}

func splitList(text string) []string {
	return append([]string{}, strings.FieldsFunc(text, func(c rune) bool { return c == ',' || c == ' ' || c == '\n' || c == '\t' })...)
}

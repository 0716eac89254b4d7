// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/caps"
)

var lsmProbes = []spec{
	{
		name: "apparmor-unconfine", group: "lsm", own: true,
		about: "change to a profile that permits more",
		try: func(w *world) attempt {
			if w.appArmor == "" {
				return notApplicable("not confined by AppArmor")
			}
			return w.writeAttr([]string{"/proc/self/attr/apparmor/exec", "/proc/self/attr/exec"}, "exec unconfined", appArmor)
		},
	},
	{
		name: "selinux-retype", group: "lsm", own: true,
		about: "start the next program in a type that permits more",
		try: func(w *world) attempt {
			if w.seLinux == "" {
				return notApplicable("not labelled by SELinux")
			}
			f := strings.SplitN(w.seLinux, ":", 4)
			for _, kind := range []string{"unconfined_t", "spc_t", "initrc_t", "kernel_t"} {
				if len(f) >= 3 && f[2] != kind {
					f[2] = kind
					a := w.writeAttr([]string{"/proc/self/attr/exec"}, strings.Join(f, ":"), selinux)
					if a.outcome != NotApplicable {
						// Permission to name the next type is given apart
						// from that to change to it.
						return a
					}
				}
			}
			return notApplicable("the policy has none of the types that permit more")
		},
	},
	writeLSM("apparmor-load", "load a profile of one's own", "/sys/kernel/security/apparmor/.load"),
	writeLSM("apparmor-remove", "remove the profile that confines", "/sys/kernel/security/apparmor/.remove"),
	writeLSM("selinux-load", "load a policy of one's own", "/sys/fs/selinux/load"),
	writeLSM("selinux-permissive", "have SELinux permit everything", "/sys/fs/selinux/enforce"),
}

func writeLSM(name, about, path string) spec {
	return spec{name: name, group: "lsm", about: about, try: func(w *world) attempt {
		return w.openFirst([]string{path}, unix.O_WRONLY, caps.Of(caps.MACAdmin, caps.DACOverride))
	}}
}

// writeAttr asks a module for another label for what is executed next, which
// is nothing: the worker ends.
func (w *world) writeAttr(paths []string, value string, layer Layer) attempt {
	for _, path := range paths {
		err := os.WriteFile(path, []byte(value), 0)
		if os.IsNotExist(err) {
			continue
		}
		if err == nil {
			return open("")
		}
		a := w.opened(err, path, caps.Of(caps.DACOverride))
		if a.errno == unix.EACCES || a.errno == unix.EPERM {
			a.outcome, a.layer = Blocked, layer
		}
		return a
	}
	return notApplicable("no /proc")
}

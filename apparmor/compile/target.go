// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"sync"

	"github.com/palisade-sec/palisade/apparmor"
)

// portable are the features that every kernel since 6.1 without patches has:
// what to compile for where the kernel is not known.
const portable = `capability {0xffffff
}
domain {attach_conditions {xattr {yes
}
}
change_hat {yes
}
change_hatv {yes
}
change_onexec {yes
}
change_profile {yes
}
computed_longest_left {yes
}
stack {yes
}
version {1.2
}
}
file {mask {create read write exec append mmap_exec link lock
}
}
mount {mask {mount umount pivot_root
}
}
namespaces {pivot_root {no
}
profile {yes
}
}
network_v8 {af_mask {unspec unix inet inet6 netlink packet
}
}
policy {outofband {0x000001
}
set_load {yes
}
versions {v5 {yes
}
v6 {yes
}
v7 {yes
}
v8 {yes
}
}
}
ptrace {mask {read trace
}
}
rlimit {mask {cpu fsize data stack core rss nproc nofile memlock as locks sigpending msgqueue nice rtprio rttime
}
}
signal {mask {hup int quit ill trap abrt bus fpe kill usr1 segv usr2 pipe alrm term stkflt chld cont stop stp ttin ttou urg xcpu xfsz vtalrm prof winch io pwr sys emt lost
}
}
`

// Portable are the features that every kernel since 6.1 has.
var Portable = sync.OnceValue(func() *apparmor.Features {
	f, err := apparmor.ParseFeatures(portable)
	if err != nil {
		panic(err) // the text is a constant
	}
	return f
})

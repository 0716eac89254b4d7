// SPDX-License-Identifier: Apache-2.0

package escapes

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/internal/oracle"
)

// A kernelRow is a call through which public weaknesses of the kernel were
// reached. What it answers when it gets there is the kernel's business; a filter
// answers EPERM, or ENOSYS for calls that programs then do without.
type kernelRow struct {
	calls []string // of the helper; all have to be refused
	cves  string
	what  string
	// def and strict tell whether the policy refuses it.
	def, strict bool
	// why it stays open under strict, or under default where Docker has it open.
	why string
}

var rowsKernel = []kernelRow{
	{[]string{"keyctl", "add_key", "request_key"}, "2016-0728", "keyrings", true, true, ""},
	{[]string{"bpf"}, "2017-16995, 2020-8835, 2021-3490, 2022-23222, 2023-2163", "bpf", true, true, ""},
	{[]string{"unshare-user", "clone-user", "clone3"}, "2021-3493, 2022-0185, 2023-0386, and the means to most of netfilter's", "user namespaces", true, true, ""},
	{[]string{"mount", "umount2"}, "2021-3493, 2023-0386", "mount of an overlay", true, true, ""},
	{[]string{"mount-cgroup"}, "2022-0492", "mount of a control group hierarchy", true, true, ""},
	{[]string{"fsopen", "fsconfig"}, "2022-0185", "file system contexts", true, true, ""},
	{[]string{"open_tree", "move_mount", "mount_setattr"}, "means: the new mount calls", "detached mounts", true, true, ""},
	{[]string{"vsock"}, "2021-26708, 2025-21756", "AF_VSOCK", true, true, ""},
	{[]string{"alg"}, "2026-31431", "AF_ALG", true, true, ""},
	{[]string{"io_uring_setup", "io_uring_enter"}, "2021-41073, 2022-2602, 2023-2598, 2024-0582", "io_uring", true, true, ""},
	{[]string{"userfaultfd"}, "means: holds the kernel in the middle of a copy", "userfaultfd", true, true, ""},
	{[]string{"perf_event_open"}, "2013-2094, 2023-5717", "perf events", true, true, ""},
	{[]string{"setns"}, "means: into other namespaces", "setns", true, true, ""},
	{[]string{"kcmp"}, "means: order of kernel pointers", "kcmp", true, true, ""},
	{[]string{"open_by_handle_at"}, "2014-6407 (shocker)", "file handles", true, true, ""},
	{[]string{"kexec_load"}, "means: another kernel", "kexec", true, true, ""},
	{[]string{"init_module"}, "means: code in the kernel", "modules", true, true, ""},
	{[]string{"pidfd_getfd"}, "means: descriptors of others", "pidfd_getfd", true, true, "Docker has it open since Linux 4.8"},
	{[]string{"move_pages", "mbind"}, "2017-14140, 2017-7616, 2020-11565", "NUMA placement", true, true, ""},
	{[]string{"packet"}, "2016-8655, 2017-7308, 2020-14386", "AF_PACKET", false, true, "Docker has it open"},
	{[]string{"ptrace", "ptrace-traceme"}, "2019-13272, 2022-30594", "ptrace", false, true, "Docker has it open since Linux 4.8"},
	{[]string{"process_vm_writev"}, "means: memory of others", "process_vm_writev", false, true, "Docker has it open since Linux 4.8"},
	{[]string{"netlink-netfilter"}, "2021-22555, 2022-34918, 2023-32233, 2024-1086, 2025-21700", "netlink: netfilter", false, true, "Docker has it open; the user namespace that it takes is refused"},
	{[]string{"netlink-route"}, "2022-2588, 2023-3609, 2023-4921, 2025-37890, 2025-38001", "netlink: traffic control", false, true, "Docker has it open; the user namespace that it takes is refused"},
	{[]string{"netlink-xfrm"}, "2017-7184, 2022-27666, 2026-43284", "netlink: XFRM", false, true, "Docker has it open; the user namespace that it takes is refused"},
	{[]string{"netlink-diag"}, "2013-1763, 2023-28327", "netlink: socket diagnosis", false, true, "Docker has it open"},
	{[]string{"rxrpc"}, "2026-43500", "AF_RXRPC", false, true, "Docker has it open"},
	{[]string{"xdp"}, "means: a family of its own", "AF_XDP", false, true, "Docker has it open"},
	{[]string{"tipc"}, "2021-43267, 2022-0435", "AF_TIPC", false, true, "Docker has it open"},
	{[]string{"smc"}, "means: a family of its own", "AF_SMC", false, true, "Docker has it open"},
	{[]string{"can"}, "2021-32606, 2021-34693, 2021-3609", "AF_CAN", false, true, "Docker has it open"},
	{[]string{"rds"}, "2010-3904, 2019-11815", "AF_RDS", false, true, "Docker has it open"},
	{[]string{"dccp"}, "2017-6074, 2020-16119", "DCCP", false, true, "Docker has it open"},
	{[]string{"sctp"}, "2021-23133, 2019-8956", "SCTP", false, true, "Docker has it open"},
	{[]string{"mptcp"}, "means: a protocol of its own", "MPTCP", false, true, "Docker has it open"},
	{[]string{"pppox"}, "2014-4943", "AF_PPPOX", false, true, "Docker has it open"},
	{[]string{"nfc"}, "2021-23134", "AF_NFC", false, true, "Docker has it open"},
	{[]string{"llc", "kcm"}, "means: families of their own", "AF_LLC, AF_KCM", false, true, "Docker has it open"},
	{[]string{"bluetooth"}, "2021-3573, 2022-42896", "AF_BLUETOOTH", false, true, "Docker has it open"},
	{[]string{"tcp"}, "2023-0461 (TLS), 2016-4997 (tables)", "AF_INET", false, true, "the network is what containers are for"},
	{[]string{"notification-pipe"}, "2022-0995", "pipe2 with O_NOTIFICATION_PIPE", true, true, ""},
	{[]string{"tiocsti", "tiocsti-high"}, "2016-2568, 2017-5226, 2019-7303", "ioctl TIOCSTI", true, true, ""},
	{[]string{"tioclinux"}, "2023-28100", "ioctl TIOCLINUX", true, true, ""},
	{
		[]string{"msg-oob-unix", "msg-oob-send", "msg-oob-receive", "msg-oob-sendmsg", "msg-oob-recvmsg", "msg-oob-sendmmsg", "msg-oob-recvmmsg"},
		"2025-38236", "MSG_OOB", false, true, "urgent data of TCP is ordinary",
	},
	{[]string{"waitid"}, "2017-5123", "waitid", false, false, "every shell waits"},
	{[]string{"splice"}, "2022-0847", "splice", false, false, "ordinary programs copy with it"},
	{[]string{"futex-pi"}, "2014-3153", "futex", false, false, "every lock is one"},
}

// plain calls must pass under every policy.
var plainCalls = []string{"send-plain", "pipe-plain", "ioctl-plain"}

// inKernel tells whether an answer came from behind every filter, given what the
// call answers without one.
func inKernel(answer, without string) bool {
	switch answer {
	case without:
		return true
	case "EPERM", "ENOSYS", "":
		return false
	}
	return !strings.HasPrefix(answer, "killed")
}

// answers runs the helper in a container and returns each call's answer.
func (s *scratch) answers(t *testing.T, rt runtime, pol string, more ...string) map[string]string {
	t.Helper()
	a := s.attempt(t, rt, pol, wayRun, 0)
	c := a.spec.Process.Capabilities
	for _, set := range []*[]string{&c.Bounding, &c.Effective, &c.Permitted} {
		*set = append(*set, more...)
	}
	a.args("/inside", "calls")
	res := a.do()
	removeAll(t, a.dir)
	got := map[string]string{}
	for l := range strings.Lines(res.out) {
		if f := strings.Fields(l); len(f) == 3 && f[0] == "call" {
			got[f[1]] = f[2]
		}
	}
	if len(got) == 0 {
		t.Fatalf("%s, %s: exit code %d: %s", rt.name, pol, res.code, res.out)
	}
	return got
}

// TestConfirmKernelEscapes makes each call in a container without a filter and
// under both policies. The engine grants CAP_SYS_ADMIN, so that a refusal is the
// filter's or the policy's, not that of the missing capability.
func TestConfirmKernelEscapes(t *testing.T) {
	s := newScratch(t)
	rt := runtime{name: "runc", path: oracle.Tool(t, "runc", "apt: runc")}
	got := map[string]map[string]string{}
	for _, pol := range []string{bare, policyDefault, policyStrict} {
		got[pol] = s.answers(t, rt, pol, "CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_SYS_MODULE", "CAP_SYS_BOOT")
	}
	var b strings.Builder
	b.WriteString("| call | public weaknesses | bare | default | strict | remark |\n|---|---|---|---|---|---|\n")
	closed := 0
	for _, r := range rowsKernel {
		cells := map[string][]string{}
		absent := true
		for _, c := range r.calls {
			without := got[bare][c]
			if without == "" {
				t.Errorf("%s: no answer without a filter", c)
			}
			absent = absent && (without == "ENOSYS" || without == "EPERM")
			for _, pol := range []string{bare, policyDefault, policyStrict} {
				answer := got[pol][c]
				cells[pol] = append(cells[pol], answer)
				if pol == bare || without == "ENOSYS" || without == "EPERM" {
					continue // not in this kernel, which says nothing
				}
				want := map[string]bool{policyDefault: r.def, policyStrict: r.strict}[pol]
				if refused := !inKernel(answer, without); refused != want {
					t.Errorf("%s (%s) under %s answers %s, and %s without: refused %v, want %v", c, r.cves, pol, answer, without, refused, want)
				}
			}
		}
		if r.strict {
			closed++
		}
		cell := func(pol string) string {
			list := slices.Compact(cells[pol])
			text := strings.Join(list, ", ")
			switch {
			case absent && pol == bare:
				return "not in this kernel"
			case pol == bare:
				return "reached: " + text
			case map[string]bool{policyDefault: r.def, policyStrict: r.strict}[pol]:
				return "refused: " + text
			}
			return "open: " + text
		}
		remark := r.why
		b.WriteString("| " + r.what + " | " + r.cves + " | " + cell(bare) + " | " + cell(policyDefault) + " | " + cell(policyStrict) + " | " + remark + " |\n")
	}
	for _, c := range plainCalls {
		for _, pol := range []string{bare, policyDefault, policyStrict} {
			if answer := got[pol][c]; answer != got[bare][c] || answer == "" {
				t.Errorf("%s under %s answers %q, and %q without a filter", c, pol, answer, got[bare][c])
			}
		}
	}
	t.Logf("kernel, %d of %d rows closed by strict:\n%s", closed, len(rowsKernel), b.String())
	if name := os.Getenv("PALISADE_ESCAPES_TABLE"); name != "" {
		if err := appendFile(name, "kernel\n\n"+b.String()+"\n"); err != nil {
			t.Error(err)
		}
	}
}

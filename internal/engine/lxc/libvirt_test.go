// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lxc_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/await"
	"github.com/palisade-sec/palisade/internal/enginetest"
	"github.com/palisade-sec/palisade/internal/oracle"
)

// libvirt is a libvirtd of the test's own, in a mount namespace with folders of
// its own where libvirt has its state compiled in.
type libvirt struct {
	*enginetest.Host
	virsh string
	pid   string // the file with the daemon's process
	// emulators counts the programs that were written.
	emulators int
}

// libvirtScript starts the daemon. Where control groups are of both versions,
// libvirt 9 takes the second for the one that counts, which has no controllers then.
const libvirtScript = `set -e
if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi
for d in /run/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt /etc/libvirt; do mkdir -p $d; mount -t tmpfs tmpfs $d; done
mkdir -p /run/libvirt/lxc /run/libvirt/common
printf 'unix_sock_dir = "%%s"\nauth_unix_ro = "none"\nauth_unix_rw = "none"\n' %[1]s/sock >/etc/libvirt/libvirtd.conf
export LIBVIRT_DRIVER_DIR=%[1]s/drivers
exec libvirtd -f /etc/libvirt/libvirtd.conf --pid-file %[1]s/libvirtd.pid
`

func newLibvirt(t *testing.T) *libvirt {
	t.Helper()
	if testing.Short() {
		t.Skip("a minute of starts")
	}
	h := enginetest.New(t)
	oracle.Tool(t, "libvirtd", "apt: libvirt-daemon")
	l := &libvirt{Host: h, virsh: oracle.Tool(t, "virsh", "apt: libvirt-clients"), pid: filepath.Join(h.Work, "libvirtd.pid")}
	drivers, err := filepath.Glob("/usr/lib*/*/libvirt/connection-driver/libvirt_driver_lxc.so")
	if more, _ := filepath.Glob("/usr/lib*/libvirt/connection-driver/libvirt_driver_lxc.so"); len(more) > 0 {
		drivers = append(drivers, more...)
	}
	if err != nil || len(drivers) == 0 {
		oracle.Missing(t, "libvirt's LXC driver (apt: libvirt-daemon-driver-lxc)")
	}
	// The other drivers want users and daemons that are not here.
	for _, dir := range []string{"drivers", "sock"} {
		if err := os.Mkdir(filepath.Join(h.Work, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(drivers[0], filepath.Join(h.Work, "drivers", filepath.Base(drivers[0]))); err != nil {
		t.Fatal(err)
	}
	h.Daemon(t, func() bool { _, code := l.call(t, "version"); return code == 0 }, "unshare", "-m", "sh", "-c", fmt.Sprintf(libvirtScript, h.Work))
	t.Cleanup(func() {
		// Domains outlive the daemon.
		for _, c := range l.ps(t) {
			if c.PID > 0 {
				_ = unix.Kill(c.PID, unix.SIGKILL)
			}
		}
	})
	return l
}

func (l *libvirt) call(t *testing.T, args ...string) (string, int) {
	t.Helper()
	return l.Run(t, l.virsh, append([]string{"-q", "-c", "lxc+unix:///system?socket=" + l.Work + "/sock/libvirt-sock"}, args...)...)
}

// emulator writes a program that starts palisade-lxc with flags: libvirt gives its
// emulators no arguments and no environment.
func (l *libvirt) emulator(t *testing.T, before string, flags ...string) string {
	t.Helper()
	l.emulators++
	name := filepath.Join(l.Work, fmt.Sprintf("emulator%d", l.emulators))
	text := fmt.Sprintf("#!/bin/sh\n%s\nexec %s/palisade-lxc --palisade-state %s/state %s \"$@\"\n", before, l.Bin, l.Work, strings.Join(flags, " "))
	if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}

// libvirtController is the program whose place palisade-lxc takes.
func libvirtController(t *testing.T) string {
	t.Helper()
	for _, p := range []string{"/usr/lib/libvirt/libvirt_lxc", "/usr/libexec/libvirt_lxc"} {
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	oracle.Missing(t, "libvirt_lxc (apt: libvirt-daemon-driver-lxc)")
	return ""
}

// domain writes a definition.
func (l *libvirt) domain(t *testing.T, name, emulator, more string, command ...string) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "<domain type='lxc'>\n<name>%s</name>\n<memory>65536</memory>\n<os><type>exe</type><init>%s</init>\n", name, command[0])
	for _, a := range command[1:] {
		fmt.Fprintf(&b, "<initarg>%s</initarg>\n", strings.NewReplacer("<", "&lt;", ">", "&gt;", "&", "&amp;").Replace(a))
	}
	fmt.Fprintf(&b, "</os>\n<devices><emulator>%s</emulator><filesystem type='mount'><source dir='%s'/><target dir='/'/></filesystem><console type='pty'/></devices>\n%s</domain>\n", emulator, l.Root, more)
	file := filepath.Join(l.Work, name+".xml")
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

type listed struct {
	ID     string `json:"id"`
	Status string `json:"status"`
	PID    int    `json:"pid"`
	Label  string `json:"label"`
	Engine string `json:"engine"`
}

func (l *libvirt) ps(t *testing.T) map[string]listed {
	t.Helper()
	out, code := l.Run(t, filepath.Join(l.Bin, "palisade"), "ps", "--json")
	var list []listed
	if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 {
		t.Fatalf("ps: exit code %d, %v: %s", code, err, out)
	}
	m := map[string]listed{}
	for _, c := range list {
		m[c.ID] = c
	}
	return m
}

// gone waits until nothing is known of any domain, and no label is held.
func (l *libvirt) gone(t *testing.T) {
	t.Helper()
	await.True(t, "no domain is known", func() bool { return len(l.ps(t)) == 0 })
	// The record goes before the label, which must not be free before it.
	await.True(t, "no label is held", func() bool {
		out, _ := l.Run(t, filepath.Join(l.Bin, "palisade"), "label", "ls", "--json")
		var labels []struct{ ID, State string }
		if err := json.Unmarshal([]byte(out), &labels); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return !slices.ContainsFunc(labels, func(r struct{ ID, State string }) bool { return r.State != "quarantine" })
	})
	if out, _ := l.call(t, "list", "--name"); strings.TrimSpace(out) != "" {
		t.Errorf("libvirt still has %s", out)
	}
}

// field is a line of /proc/PID/status.
func field(t *testing.T, pid int, name string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// TestConfirmLibvirt has libvirt start containers through palisade-lxc.
func TestConfirmLibvirt(t *testing.T) {
	l := newLibvirt(t)
	emulator, controller := l.emulator(t, ""), libvirtController(t)
	const private = "<features><privnet/></features>"

	t.Run("two domains", func(t *testing.T) {
		labels := map[string]bool{}
		for _, name := range []string{"web", "db"} {
			if out, code := l.call(t, "define", l.domain(t, name, emulator, private, "/bin/sleep", "1000")); code != 0 {
				t.Fatal(out)
			}
			if out, code := l.call(t, "start", name); code != 0 {
				t.Fatal(out)
			}
			c := l.ps(t)["lxc-"+name]
			if c.Status != "running" || c.Engine != "libvirt" || c.Label == "" || labels[c.Label] {
				t.Fatalf("%+v", c)
			}
			labels[c.Label] = true
			for name, want := range map[string]string{
				"Seccomp": "2", "Seccomp_filters": "1", "NoNewPrivs": "1", "CapAmb": "0000000000000000",
				// What both Docker and libvirt give: Docker's without mknod.
				"CapBnd": "00000000a00425fb", "CapEff": "00000000a00425fb", "CapPrm": "00000000a00425fb",
			} {
				if got := field(t, c.PID, name); got != want {
					t.Errorf("%s is %s, want %s", name, got, want)
				}
			}
			if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", c.PID)); err != nil || filepath.Base(exe) != "busybox" {
				t.Errorf("runs %s, %v", exe, err)
			}
			fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", c.PID))
			if err != nil || len(fds) != 3 {
				t.Errorf("open descriptors: %v, %v", fds, err)
			}
			out, code := l.Run(t, filepath.Join(l.Bin, "palisade"), "inspect", "lxc-"+name, "--json")
			var in enginetest.Inspection
			if err := json.Unmarshal([]byte(out), &in); err != nil || code != 0 || len(in.Mismatches) > 0 || in.Effective.Landlock == nil {
				t.Errorf("inspect: exit code %d, %v: %s", code, err, out)
			}
			// What libvirt shows is what the person defined.
			if xml, _ := l.call(t, "dumpxml", name); !strings.Contains(xml, "<init>/bin/sleep</init>") || strings.Contains(xml, "/proc/") {
				t.Errorf("libvirt shows %s", xml)
			}
		}
		if out, code := l.call(t, "destroy", "web"); code != 0 {
			t.Error(out)
		}
		await.True(t, "the first domain is forgotten", func() bool { return l.ps(t)["lxc-web"] == listed{} })
		if left := l.ps(t); left["lxc-db"].Status != "running" {
			t.Errorf("the other domain: %v", left)
		}
		// A container that ends by itself.
		if err := unix.Kill(l.ps(t)["lxc-db"].PID, unix.SIGKILL); err != nil {
			t.Error(err)
		}
		l.gone(t)
	})

	t.Run("inside", func(t *testing.T) {
		note := filepath.Join(l.Work, "note")
		if err := os.WriteFile(note, []byte("hello\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		// A descriptor of the caller stays number 3. Making a block device is
		// refused by Landlock, with another error than the control group's.
		script := `exec >/tmp/out 2>&1; cat <&3; ls /proc/self/fd; grep -E 'NoNewPrivs|Seccomp:|CapBnd' /proc/self/status
mknod /tmp/null c 1 3 && echo made; mknod /tmp/block b 7 0; head -c 1 /proc/kcore; ls /sys/fs/cgroup /proc/acpi /sys/firmware
echo 1 > /proc/sys/net/ipv4/ip_forward; unshare -U true; mount -t tmpfs t /tmp; echo end`
		features := "<features><privnet/><capabilities policy='default'><mknod state='on'/></capabilities></features>"
		for _, applet := range []string{"mknod", "unshare", "mount", "head"} {
			if err := os.Symlink("busybox", filepath.Join(l.Root, "bin", applet)); err != nil {
				t.Fatal(err)
			}
		}
		file := l.domain(t, "inside", emulator, features, "/bin/sh", "-c", script)
		call := fmt.Sprintf("exec 7<%s; exec %s -q -c 'lxc+unix:///system?socket=%s/sock/libvirt-sock' create %s --pass-fds 7", note, l.virsh, l.Work, file)
		if out, code := l.Run(t, "sh", "-c", call); code != 0 {
			t.Fatal(out)
		}
		var out string
		await.True(t, "the script ends", func() bool {
			b, _ := os.ReadFile(filepath.Join(l.Root, "tmp/out"))
			out = string(b)
			return strings.HasSuffix(out, "end\n")
		})
		for _, want := range []string{
			"hello\n", "\n3\n", "NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t00000000a80425fb", "made\n", "mknod: /tmp/block: Permission denied",
			"can't create /proc/sys/net/ipv4/ip_forward: Read-only file system", "unshare(0x10000000): Operation not permitted", "mount: permission denied",
		} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in\n%s", want, out)
			}
		}
		if strings.Contains(out, "memory") || strings.Contains(out, "\n5\n") {
			t.Errorf("control groups or descriptors are seen in\n%s", out)
		}
		l.gone(t)
	})

	t.Run("another user", func(t *testing.T) {
		passwd := filepath.Join(l.Root, "etc/passwd")
		if err := os.WriteFile(passwd, []byte("root:x:0:0::/:/bin/sh\nweb:x:1000:1000::/:/bin/sh\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		file := l.domain(t, "user", emulator, private, "/bin/sleep", "1000")
		text := strings.Replace(mustRead(t, file), "<init>", "<inituser>web</inituser><init>", 1)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, code := l.call(t, "create", file); code != 0 {
			t.Fatal(out)
		}
		c := l.ps(t)["lxc-user"]
		if uid := field(t, c.PID, "Uid"); !strings.HasPrefix(uid, "1000\t") || field(t, c.PID, "Seccomp") != "2" || field(t, c.PID, "CapEff") != "0000000000000000" {
			t.Errorf("user %s, Seccomp %s, CapEff %s", uid, field(t, c.PID, "Seccomp"), field(t, c.PID, "CapEff"))
		}
		if out, code := l.call(t, "destroy", "user"); code != 0 {
			t.Error(out)
		}
		l.gone(t)
	})

	t.Run("interface", func(t *testing.T) {
		// libvirt sets it up in the container, and executes nothing for that.
		if err := os.Symlink("busybox", filepath.Join(l.Root, "bin/ip")); err != nil {
			t.Fatal(err)
		}
		file := l.domain(t, "net", emulator, "", "/bin/sh", "-c", "until ip addr | grep -q 192.0.2.7; do sleep 0.1; done; ip addr >/tmp/addresses; exec sleep 1000")
		text := strings.Replace(mustRead(t, file), "<console", "<interface type='ethernet'><ip address='192.0.2.7' family='ipv4' prefix='24'/></interface><console", 1)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, code := l.call(t, "create", file); code != 0 {
			t.Fatal(out)
		}
		await.True(t, "the interface has its address", func() bool {
			b, _ := os.ReadFile(filepath.Join(l.Root, "tmp/addresses"))
			return strings.Contains(string(b), "192.0.2.7/24")
		})
		if out, code := l.Run(t, filepath.Join(l.Bin, "palisade"), "inspect", "lxc-net"); code != 0 {
			t.Errorf("inspect: exit code %d: %s", code, out)
		}
		if out, code := l.call(t, "destroy", "net"); code != 0 {
			t.Error(out)
		}
		l.gone(t)
	})

	t.Run("host integrate", func(t *testing.T) {
		// What palisade prints libvirt takes, and keeps as it is.
		file := l.domain(t, "printed", "/usr/lib/libvirt/libvirt_lxc", private, "/bin/sleep", "1000")
		printed, code := l.Run(t, filepath.Join(l.Bin, "palisade"), "host", "integrate", "libvirt", file, "--wrapper", emulator, "--policy", "strict", "--level", "s0:c3,c9")
		if code != 0 {
			t.Fatal(printed)
		}
		if err := os.WriteFile(file, []byte(printed), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, code := l.call(t, "define", file, "--validate"); code != 0 {
			t.Fatal(out)
		}
		xml, _ := l.call(t, "dumpxml", "printed")
		for _, want := range []string{"<emulator>" + emulator + "</emulator>", `policy="strict"`, "<seclabel type='static' model='selinux' relabel='no'>", ":s0:c3,c9</label>"} {
			if !strings.Contains(xml, want) {
				t.Errorf("no %s in\n%s", want, xml)
			}
		}
		if out, code := l.call(t, "undefine", "printed"); code != 0 {
			t.Error(out)
		}
	})

	t.Run("strict", func(t *testing.T) {
		_ = os.Remove(filepath.Join(l.Root, "tmp/out"))
		more := "<metadata><p:confine xmlns:p='https://palisade-sec.github.io/libvirt/1' policy='strict'/></metadata>" + private
		if out, code := l.call(t, "create", l.domain(t, "tight", emulator, more, "/bin/sh", "-c", "echo x > /tmp/out; exec sleep 1000")); code != 0 {
			t.Fatal(out)
		}
		c := l.ps(t)["lxc-tight"]
		if got := field(t, c.PID, "CapBnd"); got != "0000000000000000" {
			t.Errorf("CapBnd is %s", got)
		}
		if _, err := os.Stat(filepath.Join(l.Root, "tmp/out")); err == nil {
			t.Error("the root can be written to")
		}
		if out, code := l.Run(t, filepath.Join(l.Bin, "palisade"), "inspect", "lxc-tight"); code != 0 || !strings.Contains(out, "policy strict") {
			t.Errorf("inspect: exit code %d: %s", code, out)
		}
		if out, code := l.call(t, "destroy", "tight"); code != 0 {
			t.Error(out)
		}
		l.gone(t)
	})

	t.Run("user namespace", func(t *testing.T) {
		if _, err := os.Stat("/proc/self/ns/user"); err != nil {
			t.Skip("the kernel has no user namespaces")
		}
		more := private + "<idmap><uid start='0' target='100000' count='65536'/><gid start='0' target='100000' count='65536'/></idmap>"
		// The root has to be that user's, and the way to it open.
		if err := os.Chmod(l.Work, 0o755); err != nil {
			t.Fatal(err)
		}
		chown(t, l.Root, 100000)
		defer chown(t, l.Root, 0)
		if out, code := l.call(t, "create", l.domain(t, "mapped", emulator, more, "/bin/sleep", "1000")); code != 0 {
			t.Fatal(out)
		}
		c := l.ps(t)["lxc-mapped"]
		if uid := field(t, c.PID, "Uid"); !strings.HasPrefix(uid, "100000") || field(t, c.PID, "Seccomp") != "2" {
			t.Errorf("user %s, Seccomp %s", uid, field(t, c.PID, "Seccomp"))
		}
		if out, code := l.Run(t, filepath.Join(l.Bin, "palisade"), "inspect", "lxc-mapped"); code != 0 {
			t.Errorf("inspect: exit code %d: %s", code, out)
		}
		if out, code := l.call(t, "destroy", "mapped"); code != 0 {
			t.Error(out)
		}
		l.gone(t)
	})

	t.Run("refused", func(t *testing.T) {
		// A controller that takes a mask away before the container starts.
		weaker := filepath.Join(l.Work, "weaker")
		script := `#!/bin/sh
sed '/<filesystem/{:a;N;/<\/filesystem>/!ba;/proc\/keys/d}' /run/libvirt/lxc/$2.xml >` + weaker + `.xml
umount /run/libvirt/lxc/$2.xml
mount --bind ` + weaker + `.xml /run/libvirt/lxc/$2.xml
exec ` + controller + ` "$@"
`
		if err := os.WriteFile(weaker, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			emulator, more, want string
			command              []string
		}{
			"no such command":      {emulator, "", "no such file or directory", []string{"/bin/nosuch"}},
			"not executable":       {emulator, "", "permission denied", []string{"/etc"}},
			"no last step":         {l.emulator(t, "export PALISADE_INIT=/nosuch"), "", "palisade-init not found", []string{"/bin/sleep", "1000"}},
			"none wanted":          {l.emulator(t, "export PALISADE_INIT=none"), "", "palisade-init not found", []string{"/bin/sleep", "1000"}},
			"broken last step":     {l.emulator(t, "export PALISADE_INIT=/bin/false"), "", "before palisade-init had confined it", []string{"/bin/sleep", "1000"}},
			"no such policy":       {emulator, "<metadata><p:confine xmlns:p='https://palisade-sec.github.io/libvirt/1' policy='none'/></metadata>", "no such policy", []string{"/bin/sleep", "1000"}},
			"no such controller":   {l.emulator(t, "", "--palisade-emulator /nosuch"), "", "exec /nosuch", []string{"/bin/sleep", "1000"}},
			"unknown flag":         {l.emulator(t, "", "--palisade-nosuch x"), "", "unknown option", []string{"/bin/sleep", "1000"}},
			"less than was asked":  {l.emulator(t, "", "--palisade-emulator "+weaker), "", "less confined than asked: mounts: asked for masked /proc/keys", []string{"/bin/sleep", "1000"}},
			"a label without host": {emulator, "<seclabel type='static' model='selinux' relabel='no'><label>system_u:system_r:container_t:s0:c1,c2</label></seclabel>", "Security driver model 'selinux' is not available", []string{"/bin/sleep", "1000"}},
		} {
			if name == "a label without host" {
				if _, err := os.Stat("/sys/fs/selinux/enforce"); err == nil {
					continue
				}
			}
			out, code := l.call(t, "create", l.domain(t, "refused", c.emulator, c.more, c.command...))
			if code == 0 || !strings.Contains(out, c.want) {
				t.Errorf("%s: exit code %d: %s", name, code, out)
			}
			l.gone(t)
		}
		root := strings.Replace(mustRead(t, l.domain(t, "hostroot", emulator, "", "/bin/sh")), l.Root, "/", 1)
		file := filepath.Join(l.Work, "hostroot.xml")
		if err := os.WriteFile(file, []byte(root), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, code := l.call(t, "create", file); code == 0 || !strings.Contains(out, "its root is the host's") {
			t.Errorf("the host's root: exit code %d: %s", code, out)
		}
		l.gone(t)
		warned := l.emulator(t, "", "--palisade-on-mismatch warn", "--palisade-emulator", weaker)
		if out, code := l.call(t, "create", l.domain(t, "warned", warned, "", "/bin/sleep", "1000")); code != 0 {
			t.Errorf("warn: exit code %d: %s", code, out)
		}
		if out, code := l.Run(t, filepath.Join(l.Bin, "palisade"), "inspect", "lxc-warned"); code != 1 || !strings.Contains(out, "/proc/keys") {
			t.Errorf("inspect: exit code %d: %s", code, out)
		}
		if out, code := l.call(t, "destroy", "warned"); code != 0 {
			t.Error(out)
		}
		l.gone(t)
	})

	t.Run("file systems", func(t *testing.T) {
		folder := func(name string) string {
			dir := filepath.Join(l.Work, name)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			return dir
		}
		data := folder("data")
		if err := os.WriteFile(filepath.Join(data, "file"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		mount := func(kind, source, target string) string {
			return fmt.Sprintf("<filesystem type='%s'><source dir='%s'/><target dir='%s'/></filesystem>", kind, source, target)
		}
		ram := func(target string) string {
			return "<filesystem type='ram'><source usage='64' units='KiB'/><target dir='" + target + "'/></filesystem>"
		}
		if err := os.Symlink("/proc/self/fd", filepath.Join(l.Root, "tmp/link")); err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct{ devices, want string }{
			"over /proc":            {mount("mount", data, "/proc"), "only a whole procfs may be mounted at /proc"},
			"over /proc in memory":  {ram("/proc"), "only a whole procfs may be mounted at /proc"},
			"procfs at /proc":       {mount("mount", "/proc", "/proc"), "has the kernel's files"},
			"below /proc":           {mount("mount", data, "/proc/self/fd"), "nothing may be mounted below /proc"},
			"below /proc by a link": {mount("mount", data, "/tmp/link"), "nothing may be mounted below /proc"},
			"over /dev":             {mount("mount", data, "/dev"), "nothing may be mounted at /dev"},
			"over the null device":  {mount("mount", data+"/file", "/dev/null"), "nothing may be mounted at /dev"},
			"over /sys":             {ram("/sys/"), "nothing may be mounted at /dev, /dev/null or /sys"},
			"another view of /proc": {mount("bind", "/proc", "/tmp"), "has the kernel's files"},
			"the host's /sys":       {mount("mount", "/sys", "/tmp"), "has the kernel's files"},
			"the state folder":      {mount("mount", l.Work+"/state", "/tmp"), "reaches the state folder"},
			"above the state":       {mount("mount", filepath.Dir(l.Work), "/tmp"), "reaches the state folder"},
			"inside the state":      {mount("mount", l.Work+"/state/containers", "/tmp"), "reaches the state folder"},
		} {
			file := l.domain(t, "refused", emulator, private, "/bin/sleep", "1000")
			text := strings.Replace(mustRead(t, file), "<console", c.devices+"<console", 1)
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			if out, code := l.call(t, "create", file); code == 0 || !strings.Contains(out, c.want) {
				t.Errorf("%s: exit code %d: %s", name, code, out)
			}
			l.gone(t)
		}
		// A root whose /proc is a link.
		linked := folder("linked")
		if err := os.Symlink("/tmp", filepath.Join(linked, "proc")); err != nil {
			t.Fatal(err)
		}
		file := l.domain(t, "linked", emulator, private, "/bin/sleep", "1000")
		text := strings.Replace(mustRead(t, file), l.Root, linked, 1)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, code := l.call(t, "create", file); code == 0 || !strings.Contains(out, "must be folders, not links") {
			t.Errorf("a root with a link: exit code %d: %s", code, out)
		}
		l.gone(t)
		// What is allowed works.
		file = l.domain(t, "data", emulator, private, "/bin/sleep", "1000")
		text = strings.Replace(mustRead(t, file), "<console", mount("mount", data, "/data")+mount("bind", "/data", "/more")+ram("/scratch")+"<console", 1)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, code := l.call(t, "create", file); code != 0 {
			t.Fatal(out)
		}
		for _, name := range []string{"data/file", "more/file", "scratch"} {
			if _, err := os.Stat(fmt.Sprintf("/proc/%d/root/%s", l.ps(t)["lxc-data"].PID, name)); err != nil {
				t.Error(err)
			}
		}
		if out, code := l.call(t, "destroy", "data"); code != 0 {
			t.Error(out)
		}
		l.gone(t)
	})

	t.Run("another program first", func(t *testing.T) {
		// A controller that puts a folder of an image in the place of the process's
		// descriptors, with programs where the last step is looked for.
		fake, mark := filepath.Join(l.Work, "fake"), filepath.Join(l.Root, "tmp/ran-first")
		if err := os.MkdirAll(fake, 0o755); err != nil {
			t.Fatal(err)
		}
		for n := range 8 {
			if err := os.WriteFile(filepath.Join(fake, strconv.Itoa(n)), []byte("#!/bin/sh\necho ran >/tmp/ran-first\nexec \"$@\"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		swaps := filepath.Join(l.Work, "swaps")
		script := `#!/bin/sh
sed 's#</devices>#<filesystem type="mount"><source dir="` + fake + `"/><target dir="/proc/1/fd"/></filesystem></devices>#' /run/libvirt/lxc/$2.xml >` + swaps + `.xml
umount /run/libvirt/lxc/$2.xml
mount --bind ` + swaps + `.xml /run/libvirt/lxc/$2.xml
exec ` + controller + ` "$@"
`
		if err := os.WriteFile(swaps, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, mismatch := range []string{"kill", "warn"} {
			swapping := l.emulator(t, "", "--palisade-on-mismatch "+mismatch, "--palisade-emulator", swaps)
			out, code := l.call(t, "create", l.domain(t, "swapped", swapping, private, "/bin/sleep", "1000"))
			if code == 0 || !strings.Contains(out, "another program than the last step was executed first") {
				t.Errorf("on mismatch %s: exit code %d: %s", mismatch, code, out)
			}
			if _, err := os.Stat(mark); err == nil {
				t.Error("the image's program ran")
			}
			l.gone(t)
		}
	})

	// What accompanies a domain, and its controller, killed while it starts.
	watcher := filepath.Join(l.Bin, "palisade-lxc") + "\x00watch\x00"
	for name, begins := range map[string]string{"watcher": watcher, "controller": controller + "\x00--name\x00killed\x00"} {
		t.Run("kill the "+name, func(t *testing.T) {
			killed, rounds := 0, 5
			if n, err := strconv.Atoi(os.Getenv("LIBVIRT_KILLS")); err == nil {
				rounds = n
			}
			// A command of its own, to be found by.
			nap := strconv.Itoa(100000 + rand.IntN(800000))
			file := l.domain(t, "killed", emulator, private, "/bin/sleep", nap)
			for round := range rounds {
				most := time.Duration(60*(1+4*(round%2))) * time.Millisecond
				stop, done := make(chan struct{}), make(chan bool)
				go func() { done <- kill(begins, most, stop) }()
				out, code := l.call(t, "create", file)
				close(stop)
				hit := <-done
				if hit {
					killed++
				}
				switch {
				case code == 0 && name == "controller" && hit:
					// It was too late, and the domain is ending.
				case code == 0:
					// It was too late: everything is in force.
					if out, code := l.Run(t, filepath.Join(l.Bin, "palisade"), "inspect", "lxc-killed"); code != 0 {
						t.Errorf("it runs, less confined: %s", out)
					}
					if out, code := l.call(t, "destroy", "killed"); code != 0 {
						t.Error(out)
					}
				case !hit:
					t.Errorf("it did not start: %s", out)
				}
				await.True(t, "the command ends", func() bool { return len(processes(t, "/bin/sleep\x00"+nap+"\x00")) == 0 })
				if out, code := l.Run(t, filepath.Join(l.Bin, "palisade"), "gc"); code != 0 {
					t.Error(out)
				}
				l.gone(t)
			}
			t.Logf("killed %d of %d", killed, rounds)
		})
	}

	t.Run("kill the watcher before the controller", func(t *testing.T) {
		// The program in the controller's place kills what traces it, and would go on.
		mark := filepath.Join(l.Work, "went-on")
		killer := filepath.Join(l.Work, "killer")
		text := "#!/bin/sh\nkill -9 $(grep TracerPid: /proc/$$/status | cut -f2)\nsleep 10\ntouch " + mark + "\nexec " + controller + " \"$@\"\n"
		if err := os.WriteFile(killer, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		out, code := l.call(t, "create", l.domain(t, "untraced", l.emulator(t, "", "--palisade-emulator "+killer), private, "/bin/sleep", "1000"))
		if _, err := os.Stat(mark); code == 0 || err == nil {
			t.Errorf("it went on, untraced: exit code %d: %s", code, out)
		}
		if out, code := l.Run(t, filepath.Join(l.Bin, "palisade"), "gc"); code != 0 {
			t.Error(out)
		}
		l.gone(t)
	})

	t.Run("after the start", func(t *testing.T) {
		file := l.domain(t, "free", emulator, private, "/bin/sleep", "1000")
		for _, victim := range []string{"watcher", "controller"} {
			if out, code := l.call(t, "create", file); code != 0 {
				t.Fatal(out)
			}
			c := l.ps(t)["lxc-free"]
			controller, err := strconv.Atoi(field(t, c.PID, "PPid"))
			if err != nil {
				t.Fatal(err)
			}
			for _, pid := range []int{c.PID, controller} {
				if tracer := field(t, pid, "TracerPid"); tracer != "0" {
					t.Errorf("process %d is traced by %s", pid, tracer)
				}
			}
			if victim == "watcher" {
				// Nothing depends on it but that the label is given back.
				for _, pid := range beginning(watcher) {
					if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); strings.Contains(string(b), "\x00lxc-free\x00") {
						if err := unix.Kill(pid, unix.SIGKILL); err != nil {
							t.Error(err)
						}
					}
				}
				if out, code := l.Run(t, filepath.Join(l.Bin, "palisade"), "gc"); code != 0 || strings.Contains(out, "free") {
					t.Errorf("gc: exit code %d: %s", code, out)
				}
				if out, code := l.Run(t, filepath.Join(l.Bin, "palisade"), "inspect", "lxc-free"); code != 0 {
					t.Errorf("inspect: exit code %d: %s", code, out)
				}
				if out, code := l.call(t, "destroy", "free"); code != 0 {
					t.Error(out)
				}
				if out, code := l.Run(t, filepath.Join(l.Bin, "palisade"), "gc"); code != 0 {
					t.Error(out)
				}
			} else if err := unix.Kill(controller, unix.SIGKILL); err != nil {
				t.Error(err)
			}
			l.gone(t)
		}
	})

	t.Run("start again at once", func(t *testing.T) {
		file := l.domain(t, "again", emulator, private, "/bin/sleep", "1000")
		for range 5 {
			if out, code := l.call(t, "create", file); code != 0 {
				t.Fatal(out)
			}
			if out, code := l.call(t, "destroy", "again"); code != 0 {
				t.Fatal(out)
			}
		}
		l.gone(t)
	})

	t.Run("libvirt ends first", func(t *testing.T) {
		// Domains outlive the daemon, and so does what keeps their labels.
		if out, code := l.call(t, "create", l.domain(t, "outlives", emulator, private, "/bin/sleep", "1000")); code != 0 {
			t.Fatal(out)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(mustRead(t, l.pid)))
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		c := l.ps(t)["lxc-outlives"]
		if c.Status != "running" {
			t.Errorf("%+v", c)
		}
		if out, code := l.Run(t, filepath.Join(l.Bin, "palisade"), "gc"); code != 0 || strings.Contains(out, "outlives") {
			t.Errorf("gc: exit code %d: %s", code, out)
		}
		if err := unix.Kill(c.PID, unix.SIGKILL); err != nil {
			t.Error(err)
		}
		await.True(t, "the domain is forgotten", func() bool { return len(l.ps(t)) == 0 })
	})
}

func chown(t *testing.T, root string, id int) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, id, id)
	})
	if err != nil {
		t.Error(err)
	}
}

func mustRead(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// processes are those with a command line that ends so.
func processes(t *testing.T, suffix string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(files, func(f string) bool {
		b, err := os.ReadFile(f)
		return err != nil || !strings.HasSuffix(string(b), suffix)
	})
}

// kill kills the process of a domain that is being started whose command line begins
// so, within some time after it is there; not any more once stop is closed.
func kill(begins string, within time.Duration, stop chan struct{}) bool {
	for {
		select {
		case <-stop:
			return false
		default:
		}
		pids := beginning(begins)
		if len(pids) == 0 {
			await.Moment(time.Millisecond)
			continue
		}
		await.Moment(within)
		select {
		case <-stop:
			return false
		default:
		}
		return unix.Kill(pids[0], unix.SIGKILL) == nil
	}
}

// beginning are the processes whose command line begins so.
func beginning(begins string) []int {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	var pids []int
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil || !strings.HasPrefix(string(b), begins) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

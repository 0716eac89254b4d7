// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/palisade-sec/palisade/denial"
)

const (
	avcBody      = `avc:  denied  { read write } for  pid=812 comm="cat" path="/srv/data" dev="vda1" ino=77 scontext=system_u:system_r:container_t:s0:c1,c2 tcontext=system_u:object_r:container_file_t:s0:c3,c4 tclass=file permissive=0`
	seccompBody  = `auid=4294967295 uid=0 gid=0 ses=4294967295 subj=docker-default pid=29064 comm="http-echo" exe="/http-echo" sig=31 arch=c000003e syscall=165 compat=0 ip=0x46fe1f code=0x80000000`
	landlockBody = `domain=1a6fdc66f blockers=fs.make_reg,fs.refer path="/home/user/x" dev="sda1" ino=1183972`
)

var at = time.UnixMilli(1700000000123).UTC()

func avcDenial() denial.Denial {
	return denial.Denial{
		Mechanism: denial.SELinux, Subject: "system_u:system_r:container_t:s0:c1,c2", ObjectLabel: "system_u:object_r:container_file_t:s0:c3,c4",
		Class: "file", Access: []string{"read", "write"}, Object: "/srv/data", PID: 812, Command: "cat",
	}
}

func seccompDenial() denial.Denial {
	return denial.Denial{
		Mechanism: denial.Seccomp, Subject: "docker-default", Class: "amd64", Object: "mount", Operation: "KILL_PROCESS", PID: 29064, Command: "http-echo",
	}
}

func landlockDenial() denial.Denial {
	return denial.Denial{Mechanism: denial.Landlock, Subject: "1a6fdc66f", Class: "fs", Access: []string{"fs.make_reg", "fs.refer"}, Object: "/home/user/x"}
}

// stamped is a denial with the identity that the table's lines have.
func stamped(d denial.Denial) denial.Denial {
	d.Time, d.Serial = at, 456
	return d
}

func with(d denial.Denial, change func(*denial.Denial)) denial.Denial {
	change(&d)
	return d
}

type row struct {
	name string
	line string
	want denial.Denial
	err  error
}

const id = "audit(1700000000.123:456): "

var parseTable = []row{
	// The forms of a line, for each type.
	{name: "auditd, AVC", line: "type=AVC msg=" + id + avcBody, want: stamped(avcDenial())},
	{name: "auditd, SECCOMP", line: "type=SECCOMP msg=" + id + seccompBody, want: stamped(seccompDenial())},
	{name: "auditd, LANDLOCK_ACCESS", line: "type=LANDLOCK_ACCESS msg=" + id + landlockBody, want: stamped(landlockDenial())},
	{name: "auditd that does not know the type", line: "type=UNKNOWN[1423] msg=" + id + landlockBody, want: stamped(landlockDenial())},
	{name: "auditd with a node", line: "node=host1 type=SECCOMP msg=" + id + seccompBody, want: stamped(seccompDenial())},
	{name: "auditd, enriched", line: "type=SECCOMP msg=" + id + seccompBody + "\x1dARCH=x86_64 SYSCALL=mount AUID=\"unset\" UID=\"root\"", want: stamped(seccompDenial())},
	{name: "kernel log, AVC", line: "[   12.345678] audit: type=1400 " + id + avcBody, want: stamped(avcDenial())},
	{name: "kernel log, SECCOMP", line: "[  369.1] audit: type=1326 " + id + seccompBody, want: stamped(seccompDenial())},
	{name: "kernel log, LANDLOCK", line: "[  369.1] audit: type=1423 " + id + landlockBody, want: stamped(landlockDenial())},
	{name: "/dev/kmsg", line: "5,23,2951,-;audit: type=1326 " + id + seccompBody, want: stamped(seccompDenial())},
	{name: "syslog", line: "Jul  6 15:37:40 my-machine kernel: [369128.669452] audit: type=1326 " + id + seccompBody, want: stamped(seccompDenial())},
	{name: "journal, the kernel's", line: "Jul 06 15:37:40 my-machine kernel: audit: type=1400 " + id + avcBody, want: stamped(avcDenial())},
	{name: "journal's own, AVC", line: "Jul 06 15:37:40 my-machine audit[812]: AVC " + avcBody, want: avcDenial()},
	{name: "journal's own, SECCOMP", line: "Jul 06 15:37:40 my-machine audit[29064]: SECCOMP " + seccompBody, want: seccompDenial()},
	{name: "journal's own, no name for the type", line: "Jul 06 15:37:40 my-machine audit[1]: audit-1423 " + landlockBody, want: landlockDenial()},
	{name: "netlink, AVC", line: id + avcBody, want: stamped(avcDenial())},
	{name: "netlink, SECCOMP", line: id + seccompBody, want: stamped(seccompDenial())},
	{name: "netlink, LANDLOCK", line: id + landlockBody, want: stamped(landlockDenial())},
	{name: "line end", line: id + landlockBody + "\r\n", want: stamped(landlockDenial())},
	{name: "AppArmor", line: "type=AVC msg=" + id + `apparmor="DENIED" operation="open" class="file" profile="web" name="/etc/shadow" pid=7 comm="cat" requested_mask="r" denied_mask="r" fsuid=0 ouid=0`, want: stamped(denial.Denial{
		Mechanism: denial.AppArmor, Subject: "web", Object: "/etc/shadow", Operation: "open", Class: "file", Access: []string{"r"}, PID: 7, Command: "cat",
	})},
	{name: "AppArmor's own type", line: "type=APPARMOR_DENIED msg=" + id + `operation="open" profile="web" name="/x" requested_mask="r" denied_mask="r"`, want: stamped(denial.Denial{
		Mechanism: denial.AppArmor, Subject: "web", Object: "/x", Operation: "open", Access: []string{"r"},
	})},
	{name: "AppArmor's status", line: "type=AVC msg=" + id + `apparmor="STATUS" operation="profile_load" profile="unconfined" name="web" pid=7 comm="apparmor_parser"`, err: ErrNotDenial},

	// SELinux.
	{name: "permissive", line: id + strings.Replace(avcBody, "permissive=0", "permissive=1", 1), want: stamped(with(avcDenial(), func(d *denial.Denial) { d.Outcome = denial.Allowed }))},
	{name: "granted", line: id + strings.Replace(strings.Replace(avcBody, "denied", "granted", 1), " permissive=0", "", 1), want: stamped(with(avcDenial(), func(d *denial.Denial) { d.Outcome = denial.Audited }))},
	{name: "raw contexts behind", line: id + avcBody + ` srawcon="u:r:gone_t:s0"`, want: stamped(avcDenial())},
	{name: "a name alone", line: id + strings.Replace(avcBody, "path=", "name=", 1), want: stamped(avcDenial())},
	{name: "hexadecimal names", line: id + strings.NewReplacer(`"cat"`, hexOf("c t"), `"/srv/data"`, hexOf("/srv/\"data")).Replace(avcBody), want: stamped(with(avcDenial(), func(d *denial.Denial) { d.Command, d.Object = "c t", `/srv/"data` }))},
	{name: "ioctl", line: id + `avc:  denied  { ioctl } for  pid=1 comm="sh" path="/dev/tty" ioctlcmd=0x5401 dev="devtmpfs" ino=2 scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=chr_file permissive=0`, want: stamped(denial.Denial{
		Mechanism: denial.SELinux, Subject: "a:b:c:s0", ObjectLabel: "d:e:f:s0", Class: "chr_file", Access: []string{"ioctl"}, Operation: "ioctl 0x5401", Object: "/dev/tty", PID: 1, Command: "sh",
	})},
	{name: "capability", line: id + `avc:  denied  { sys_admin } for  pid=1 comm="sh" capability=21  scontext=a:b:c:s0 tcontext=a:b:c:s0 tclass=capability permissive=0`, want: stamped(denial.Denial{
		Mechanism: denial.SELinux, Subject: "a:b:c:s0", ObjectLabel: "a:b:c:s0", Class: "capability", Access: []string{"sys_admin"}, Object: "CAP_SYS_ADMIN", PID: 1, Command: "sh",
	})},
	{name: "port", line: id + `avc:  denied  { name_connect } for  pid=1 comm="sh" dest=443 scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=tcp_socket permissive=0`, want: stamped(denial.Denial{
		Mechanism: denial.SELinux, Subject: "a:b:c:s0", ObjectLabel: "d:e:f:s0", Class: "tcp_socket", Access: []string{"name_connect"}, Object: ":443", PID: 1, Command: "sh",
	})},
	{name: "a daemon's", line: "type=USER_AVC msg=" + id + `pid=5 uid=0 auid=4294967295 ses=4294967295 subj=a:b:c:s0 msg='avc:  denied  { start } for auid=0 uid=0 gid=0 path="/x.service" cmdline="systemctl start x" scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=service permissive=0  exe="/usr/lib/systemd/systemd" sauid=0 hostname=? addr=? terminal=?'`, want: stamped(denial.Denial{
		Mechanism: denial.SELinux, Subject: "a:b:c:s0", ObjectLabel: "d:e:f:s0", Class: "service", Access: []string{"start"}, Object: "/x.service",
	})},
	{name: "policy loaded", line: "type=USER_AVC msg=" + id + `pid=1 uid=0 msg='avc:  received policyload notice (seqno=2)  exe="/x" sauid=0'`, err: ErrNotDenial},
	{name: "MAC status", line: "type=MAC_STATUS msg=" + id + "enforcing=1 old_enforcing=0", err: ErrNotDenial},
	{name: "no permissions", line: id + "avc:  denied  { } for  pid=1 scontext=a tcontext=b tclass=c permissive=0", err: ErrMalformed},
	{name: "no class", line: id + "avc:  denied  { read } for  pid=1 scontext=a tcontext=b permissive=0", err: ErrMalformed},
	{name: "context twice", line: id + strings.Replace(avcBody, "dev=", "scontext=u:r:forged_t:s0 dev=", 1), err: ErrMalformed},
	{name: "capability 64", line: id + `avc:  denied  { x } for  pid=1 comm="sh" capability=64  scontext=a:b:c:s0 tcontext=a:b:c:s0 tclass=capability permissive=0`, err: ErrMalformed},
	{name: "not an AVC's text", line: "type=AVC msg=" + id + "hello", err: ErrMalformed},

	// seccomp.
	{name: "logged", line: id + strings.Replace(seccompBody, "0x80000000", "0x7ffc0000", 1), want: stamped(with(seccompDenial(), func(d *denial.Denial) { d.Outcome, d.Operation = denial.Audited, "LOG" }))},
	{name: "an error number", line: id + strings.Replace(seccompBody, "0x80000000", "0x50000", 1), want: stamped(with(seccompDenial(), func(d *denial.Denial) { d.Operation = "ERRNO" }))},
	{name: "trap", line: id + strings.Replace(seccompBody, "0x80000000", "0x30000", 1), want: stamped(with(seccompDenial(), func(d *denial.Denial) { d.Operation = "TRAP" }))},
	{name: "a thread killed", line: id + strings.Replace(seccompBody, "0x80000000", "0x0", 1), want: stamped(with(seccompDenial(), func(d *denial.Denial) { d.Operation = "KILL_THREAD" }))},
	{name: "asked of a supervisor", line: id + strings.Replace(seccompBody, "0x80000000", "0x7fc00000", 1), want: stamped(with(seccompDenial(), func(d *denial.Denial) { d.Outcome, d.Operation = denial.Audited, "NOTIFY" }))},
	{name: "asked of a tracer", line: id + strings.Replace(seccompBody, "0x80000000", "0x7ff00000", 1), want: stamped(with(seccompDenial(), func(d *denial.Denial) { d.Outcome, d.Operation = denial.Audited, "TRACE" }))},
	{name: "no label", line: id + strings.Replace(seccompBody, "subj=docker-default ", "", 1), want: stamped(with(seccompDenial(), func(d *denial.Denial) { d.Subject = "" }))},
	{name: "a program that is gone", line: id + strings.Replace(seccompBody, `"/http-echo"`, hexOf("/memfd:palisade-init (deleted)"), 1), want: stamped(seccompDenial())},
	{name: "arm64", line: id + strings.NewReplacer("c000003e", "c00000b7", "syscall=165", "syscall=40").Replace(seccompBody), want: stamped(with(seccompDenial(), func(d *denial.Denial) { d.Class = "arm64" }))},
	{name: "x32", line: id + strings.Replace(seccompBody, "syscall=165", "syscall=1073741989", 1), want: stamped(with(seccompDenial(), func(d *denial.Denial) { d.Class = "x32" }))},
	{name: "no such call", line: id + strings.Replace(seccompBody, "syscall=165", "syscall=99999", 1), want: stamped(with(seccompDenial(), func(d *denial.Denial) { d.Object = "99999" }))},
	{name: "no such machine", line: id + strings.Replace(seccompBody, "c000003e", "dead", 1), want: stamped(with(seccompDenial(), func(d *denial.Denial) { d.Class, d.Object = "0xdead", "165" }))},
	{name: "no action", line: id + strings.Replace(seccompBody, "0x80000000", "0x7ffc0001", 1), err: ErrMalformed},
	{name: "unknown action", line: id + strings.Replace(seccompBody, "0x80000000", "0x12340000", 1), err: ErrMalformed},
	{name: "64-bit code", line: id + strings.Replace(seccompBody, "0x80000000", "0x180000000", 1), err: ErrMalformed},
	{name: "quote in a name", line: id + strings.Replace(seccompBody, `"http-echo"`, `"x" syscall=1"`, 1), err: ErrMalformed},
	{name: "field twice", line: id + seccompBody + " syscall=1", err: ErrMalformed},
	{name: "mixed with another", line: id + seccompBody[:120] + "[ 1.2] usb 1-1: new device" + seccompBody[120:], err: ErrMalformed},
	{name: "process of too many digits", line: id + strings.Replace(seccompBody, "pid=29064", "pid=99999999", 1), err: ErrMalformed},
	{name: "negative", line: id + strings.Replace(seccompBody, "pid=29064", "pid=-1", 1), err: ErrMalformed},

	// Landlock.
	{name: "a port", line: id + "domain=1266faef9 blockers=net.connect_tcp daddr=142.250.179.110 dest=80", want: stamped(denial.Denial{
		Mechanism: denial.Landlock, Subject: "1266faef9", Class: "net", Access: []string{"net.connect_tcp"}, Object: "142.250.179.110:80",
	})},
	{name: "a port of IPv6", line: id + "domain=1 blockers=net.bind_tcp saddr=::1 src=80", want: stamped(denial.Denial{
		Mechanism: denial.Landlock, Subject: "1", Class: "net", Access: []string{"net.bind_tcp"}, Object: "[::1]:80",
	})},
	{name: "a process", line: id + `domain=1a6fdc66f blockers=scope.signal opid=1 ocomm="systemd"`, want: stamped(denial.Denial{
		Mechanism: denial.Landlock, Subject: "1a6fdc66f", Class: "scope", Access: []string{"scope.signal"}, Object: "process 1 (systemd)",
	})},
	{name: "ptrace", line: id + `domain=195ba459b blockers=ptrace opid=1 ocomm="systemd"`, want: stamped(denial.Denial{
		Mechanism: denial.Landlock, Subject: "195ba459b", Class: "ptrace", Access: []string{"ptrace"}, Object: "process 1 (systemd)",
	})},
	{name: "a device's command", line: id + `domain=1 blockers=fs.ioctl_dev path="/dev/tty" dev="devtmpfs" ino=9 ioctlcmd=0x5401`, want: stamped(denial.Denial{
		Mechanism: denial.Landlock, Subject: "1", Class: "fs", Access: []string{"fs.ioctl_dev"}, Operation: "ioctl 0x5401", Object: "/dev/tty",
	})},
	{name: "a mount", line: id + `domain=1 blockers=fs.change_topology name="/" dev="tmpfs" ino=1`, want: stamped(denial.Denial{
		Mechanism: denial.Landlock, Subject: "1", Class: "fs", Access: []string{"fs.change_topology"}, Object: "/",
	})},
	{name: "a right of later", line: id + `domain=1 blockers=fs.later path="/x" dev="tmpfs" ino=1`, want: stamped(denial.Denial{
		Mechanism: denial.Landlock, Subject: "1", Class: "fs", Access: []string{"fs.later"}, Object: "/x",
	})},
	{name: "no right", line: id + `domain=1 blockers=FS.read path="/x"`, err: ErrMalformed},
	{name: "an empty right", line: id + `domain=1 blockers=fs.execute, path="/x"`, err: ErrMalformed},
	{name: "no domain", line: "type=1423 " + id + `blockers=fs.execute path="/x"`, err: ErrMalformed},
	{name: "no object", line: id + `domain=1 blockers=fs.execute`, err: ErrMalformed},
	{name: "about a domain", line: "type=LANDLOCK_DOMAIN msg=" + id + `domain=1 status=deallocated denials=3`, err: ErrNotDenial},

	// Neither.
	{name: "nothing", line: "", err: ErrNotDenial},
	{name: "text", line: "usb 1-1: new device", err: ErrNotDenial},
	{name: "a system call", line: "type=SYSCALL msg=" + id + "arch=c000003e syscall=62 success=no exit=-1", err: ErrNotDenial},
	{name: "a login", line: "type=USER_LOGIN msg=" + id + "pid=1 uid=0 msg='op=login acct=\"x avc:  denied\"'", err: ErrNotDenial},
	{name: "no serial number", line: "type=SECCOMP msg=audit(1700000000.123): " + seccompBody, err: ErrNotDenial},
	{name: "beginning lost", line: avcBody, err: ErrMalformed},
	{name: "too long", line: id + landlockBody + strings.Repeat(" ", maxLine), err: ErrMalformed},
	{name: "binary", line: id + "domain=1 blockers=fs.execute path=\"\x00\xff\"", err: ErrMalformed},
}

func hexOf(s string) string { return strings.ToUpper(hex.EncodeToString([]byte(s))) }

func TestParse(t *testing.T) {
	for _, tt := range parseTable {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse(tt.line)
			if !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
				t.Fatalf("%v, want %v", err, tt.err)
			}
			if tt.err != nil {
				return
			}
			tt.want.Raw = strings.TrimRight(tt.line, "\r\n")
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

// TestParseCutOff cuts each record at each byte: it is refused, or says what the whole one says. Only
// the end of an object can be lost, a number at the end of the line.
func TestParseCutOff(t *testing.T) {
	for _, tt := range parseTable {
		if tt.err != nil || tt.want.Mechanism == denial.AppArmor {
			continue // AppArmor's records have no fixed end
		}
		line := strings.TrimRight(tt.line, "\r\n")
		for n := range line {
			got, err := Parse(line[:n])
			if err != nil {
				continue
			}
			got.Raw, got.Object, got.Operation = "", "", ""
			want := tt.want
			want.Object, want.Operation = "", ""
			if want.Outcome == denial.Audited && want.Mechanism == denial.SELinux && got.Class != want.Class && strings.HasPrefix(want.Class, got.Class) {
				continue // a granted one ends with its class
			}
			if strings.Contains(line, "type=USER_AVC") {
				continue // ends as its daemon likes
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("%s, cut at %d: %q\ngot  %+v\nwant %+v", tt.name, n, line[:n], got, want)
			}
		}
	}
}

// untrusted writes a value as the kernel does.
//
// Source: kernel/audit.c, audit_log_n_untrustedstring.
func untrusted(s string) string {
	for _, c := range []byte(s) {
		if c == '"' || c < 0x21 || c > 0x7e {
			return hexOf(s)
		}
	}
	return `"` + s + `"`
}

// TestParseNames gives processes and files names of any bytes: each comes back as it is, and changes no
// other field.
func TestParseNames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom([]string{"comm", "path"}).Draw(t, "field")
		b := rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "name")
		if rapid.Bool().Draw(t, "hostile") {
			b = []byte(rapid.SampledFrom([]string{
				`x" pid=1 comm="y`, `x' scontext=u:r:t`, "a b", "audit(1.2:3): avc:", `apparmor="DENIED"`, "x\x1dy", "avc:  denied  { read }", "(null)", "domain=1 blockers=ptrace",
			}).Draw(t, "text"))
		}
		s := string(b)
		for _, r := range []struct {
			body string
			want denial.Denial
		}{{avcBody, avcDenial()}, {seccompBody, seccompDenial()}, {landlockBody, landlockDenial()}} {
			line, want := id+r.body, stamped(r.want)
			switch {
			case name == "comm" && want.Command != "":
				line = strings.Replace(line, untrusted(want.Command), untrusted(s), 1)
				want.Command = s
			case name == "path" && want.Mechanism != denial.Seccomp:
				line = strings.Replace(line, untrusted(want.Object), untrusted(s), 1)
				want.Object = s
			}
			want.Raw = line
			got, err := Parse(line)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("%q: %v\ngot  %+v\nwant %+v", line, err, got, want)
			}
		}
	})
}

func TestParseDomain(t *testing.T) {
	made := Domain{ID: "1a6fdc66f", PID: 286, UID: 0, Exe: "/root/sandboxer", Command: "sand boxer"}
	body := `domain=1a6fdc66f status=allocated mode=enforcing pid=286 uid=0 exe="/root/sandboxer" comm=` + hexOf("sand boxer")
	for _, tt := range []struct {
		line string
		want Domain
		err  error
	}{
		{"type=LANDLOCK_DOMAIN msg=" + id + body, made, nil},
		{"type=UNKNOWN[1424] msg=" + id + body + "\x1dUID=\"root\"", made, nil},
		{"[ 1.2] audit: type=1424 " + id + body, made, nil},
		{id + body, made, nil},
		{"x audit[286]: audit-1424 " + body, made, nil},
		{id + "domain=1a status=deallocated denials=3", Domain{ID: "1a", Gone: true, Denials: 3}, nil},
		{id + "domain=1a status=deallocated", Domain{}, ErrMalformed},
		{id + "domain=1a status=resting", Domain{}, ErrMalformed},
		{id + "domain=xyz status=allocated", Domain{}, ErrMalformed},
		{id + strings.Replace(body, "uid=0", "uid=4294967296", 1), Domain{}, ErrMalformed},
		{id + landlockBody, Domain{}, ErrNotDenial},
		{"", Domain{}, ErrNotDenial},
		{id + "domain=1" + strings.Repeat(" ", maxLine), Domain{}, ErrMalformed},
	} {
		got, err := ParseDomain(tt.line)
		if got != tt.want || !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
			t.Errorf("%.80q: %+v, %v", tt.line, got, err)
		}
	}
}

// FuzzParse wants every line to be a denial or one of two errors.
func FuzzParse(f *testing.F) {
	for _, r := range parseTable {
		if len(r.line) < 1000 {
			f.Add(r.line)
		}
	}
	f.Fuzz(func(t *testing.T, line string) {
		d, err := Parse(line)
		if (err == nil) != (d.Mechanism != "") {
			t.Fatalf("%+v, %v", d, err)
		}
		if err != nil && !errors.Is(err, ErrNotDenial) && !errors.Is(err, ErrMalformed) {
			t.Fatal(err)
		}
		if _, err := ParseDomain(line); err != nil && !errors.Is(err, ErrNotDenial) && !errors.Is(err, ErrMalformed) {
			t.Fatal(err)
		}
	})
}

func ExampleParse() {
	d, err := Parse(`[  369.1] audit: type=1326 audit(1700000000.123:456): auid=0 uid=0 gid=0 ses=1 pid=7 comm="ls" exe="/bin/ls" sig=0 arch=c000003e syscall=165 compat=0 ip=0x1 code=0x50000`)
	fmt.Println(d.Mechanism, d.Outcome, d.Command, d.Object, d.Operation, err)
	// Output: seccomp denied ls mount ERRNO <nil>
}

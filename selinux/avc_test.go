// SPDX-License-Identifier: Apache-2.0

package selinux

import (
	"errors"
	"strings"
	"testing"
)

var avcTable = []struct {
	line string
	want AVC
	err  string // part of the error, "none" for ErrNotAVC
}{
	{
		line: `type=AVC msg=audit(1700000000.123:456): avc:  denied  { read write } for  pid=812 comm="cat" path="/srv/data" dev="vda1" ino=77 scontext=system_u:system_r:container_t:s0:c1,c2 tcontext=system_u:object_r:container_file_t:s0:c3,c4 tclass=file permissive=0`,
		want: AVC{
			Permissions: []string{"read", "write"}, PID: 812, Comm: "cat", Path: "/srv/data", Class: "file",
			Source: "system_u:system_r:container_t:s0:c1,c2", Target: "system_u:object_r:container_file_t:s0:c3,c4",
		},
	},
	{
		line: `[  12.345678] audit: type=1400 audit(1700000000.123:7): avc:  denied  { ioctl } for  pid=1 comm="sh" name="tty" ioctlcmd=0x5401 scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=chr_file permissive=1`,
		want: AVC{
			Permissions: []string{"ioctl"}, PID: 1, Comm: "sh", Path: "tty", Class: "chr_file", Permissive: true,
			HasIoctl: true, Ioctl: 0x5401, Source: "a:b:c:s0", Target: "d:e:f:s0",
		},
	},
	{
		line: `type=USER_AVC msg=audit(1.2:3): pid=5 uid=0 msg='avc:  denied  { start } for auid=0 uid=0 gid=0 path="/x.service" cmdline="systemctl start x" scontext=a:b:c:s0 tcontext=d:e:f:s0 tclass=service permissive=0  exe="/usr/lib/systemd/systemd" sauid=0'`,
		want: AVC{Permissions: []string{"start"}, Path: "/x.service", Class: "service", Source: "a:b:c:s0", Target: "d:e:f:s0"},
	},
	{
		line: `avc: granted { load_policy } for scontext=a:b:c tcontext=d:e:f tclass=security`,
		want: AVC{Granted: true, Permissions: []string{"load_policy"}, Class: "security", Source: "a:b:c", Target: "d:e:f"},
	},
	{line: "", err: "none"},
	{line: "type=SYSCALL msg=audit(1.2:3): arch=c000003e", err: "none"},
	{line: "avc:  received policyload notice (seqno=2)", err: "none"},
	{line: "\x00\xff\xfeavc:\x01\x02", err: "none"},
	{line: "avc: denied read for scontext=a tcontext=b tclass=c", err: "permissions in braces"},
	{line: "avc: denied { } for scontext=a tcontext=b tclass=c", err: "at least one permission"},
	{line: "avc: denied { read } for tcontext=b tclass=c", err: "expected scontext="},
	{line: "avc: denied { read } for scontext=a tclass=c", err: "expected tcontext="},
	{line: "avc: denied { read } for scontext=a tcontext=b", err: "expected tclass="},
	{line: "avc: denied { read", err: "permissions in braces"},
	{line: "avc: denied", err: "permissions in braces"},
}

func TestParseAVC(t *testing.T) {
	for _, tt := range avcTable {
		got, err := ParseAVC(tt.line)
		switch {
		case tt.err == "none":
			if !errors.Is(err, ErrNotAVC) {
				t.Errorf("%q: %v", tt.line, err)
			}
		case tt.err != "":
			var syntax *SyntaxError
			if !errors.As(err, &syntax) || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q: %v; want %s", tt.line, err, tt.err)
			}
		case err != nil:
			t.Errorf("%q: %v", tt.line, err)
		default:
			if strings.Join(got.Permissions, " ") != strings.Join(tt.want.Permissions, " ") {
				t.Errorf("%q: permissions %q", tt.line, got.Permissions)
			}
			got.Permissions, tt.want.Permissions = nil, nil
			if got.Granted != tt.want.Granted || got.Source != tt.want.Source || got.Target != tt.want.Target || got.Class != tt.want.Class ||
				got.Permissive != tt.want.Permissive || got.Ioctl != tt.want.Ioctl || got.HasIoctl != tt.want.HasIoctl ||
				got.PID != tt.want.PID || got.Comm != tt.want.Comm || got.Path != tt.want.Path {
				t.Errorf("%q:\n got %+v\nwant %+v", tt.line, got, tt.want)
			}
		}
	}
}

func FuzzParseAVC(f *testing.F) {
	for _, tt := range avcTable {
		f.Add(tt.line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		a, err := ParseAVC(line)
		if err == nil && (a.Source == "" || a.Target == "" || a.Class == "" || len(a.Permissions) == 0) {
			t.Fatalf("%q: incomplete %+v", line, a)
		}
	})
}

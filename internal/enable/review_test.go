// SPDX-License-Identifier: Apache-2.0

package enable

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/internal/debian"
	"github.com/palisade-sec/palisade/selinux/container"
)

// TestConfirmReview decides a log again by Debian's policy, without and with
// the container module.
func TestConfirmReview(t *testing.T) {
	const log = `type=AVC msg=audit(1700000000.001:1): avc:  denied  { read } for  pid=9 comm="unix_chkpwd" name="shadow" dev="vda" ino=7 scontext=system_u:system_r:chkpwd_t:s0 tcontext=system_u:object_r:shadow_t:s0 tclass=file permissive=1
type=AVC msg=audit(1700000001.001:2): avc:  denied  { read write } for  pid=9 comm="named" path="/etc/shadow" scontext=system_u:system_r:named_t:s0 tcontext=system_u:object_r:shadow_t:s0 tclass=file permissive=1
type=AVC msg=audit(1700000001.002:3): avc:  denied  { read } for  pid=9 comm="named" path="/etc/shadow" scontext=system_u:system_r:named_t:s0 tcontext=system_u:object_r:shadow_t:s0 tclass=file permissive=1
type=AVC msg=audit(1700000001.003:4): avc:  granted  { read } for  pid=9 comm="named" scontext=system_u:system_r:named_t:s0 tcontext=system_u:object_r:shadow_t:s0 tclass=file
type=SYSCALL msg=audit(1700000001.002:3): arch=c000003e syscall=257
type=AVC msg=audit(1700000002.001:5): avc:  denied  { read } for  pid=9 comm="sh" path="/bin/x" scontext=system_u:system_r:container_t:s0:c1,c2 tcontext=system_u:object_r:container_file_t:s0:c1,c2 tclass=file permissive=1
type=AVC msg=audit(1700000002.001:6): avc:  denied
`
	for _, test := range []struct {
		name    string
		modules map[string][]byte
		settled int
		open    string
	}{
		{"plain", nil, 1, "2× named_t read shadow_t, 1× named_t write shadow_t, 1× container_t read container_file_t"},
		{"with containers", map[string][]byte{container.Name: container.Module()}, 2, "2× named_t read shadow_t, 1× named_t write shadow_t"},
	} {
		root := t.TempDir()
		policy, err := os.ReadFile(debian.Policy(t, "default", test.modules).Policy)
		if err != nil {
			t.Fatal(err)
		}
		for name, content := range map[string]string{
			"/etc/os-release": "ID=debian\n", "/etc/selinux/default/policy/policy.33": string(policy), "/etc/selinux/default/policy/policy.9": "old", "/var/log/audit/audit.log": log,
		} {
			path := filepath.Join(root, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		f, err := Gather(context.Background(), root)
		if err != nil {
			t.Fatal(err)
		}
		var open []string
		for _, d := range f.Review.Open {
			open = append(open, strings.Join([]string{string(rune('0'+d.Count)) + "×", d.Source, d.Permission, d.Target}, " "))
		}
		if got := strings.Join(open, ", "); got != test.open || f.Review.Settled != test.settled {
			t.Errorf("%s: settled %d, open %s", test.name, f.Review.Settled, got)
		}
		if !f.Policy || f.ForeignTypes != (test.modules != nil) {
			t.Errorf("%s: policy %v, types of its own %v", test.name, f.Policy, f.ForeignTypes)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/palisade-sec/palisade/apparmor"
	"github.com/palisade-sec/palisade/apparmor/blob"
	"github.com/palisade-sec/palisade/apparmor/dfa"
	"github.com/palisade-sec/palisade/internal/debian"
	"github.com/palisade-sec/palisade/internal/oracle"
)

func readFeatures(t testing.TB, name string) (*apparmor.Features, string) {
	t.Helper()
	path := filepath.Join(oracle.Corpus(t, "apparmor/features"), name)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := apparmor.ParseFeatures(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return f, path
}

// compileText compiles a profile text for the features.
func compileText(t testing.TB, text string, o Options, env apparmor.Env) *Policy {
	t.Helper()
	file, diags := apparmor.Parse("test", []byte(text))
	if diags.HasErrors() {
		t.Fatalf("%s: %v", text, diags.Err())
	}
	env.Kernel, env.ABI, env.SkipExecCheck = o.Kernel, o.Kernel, true
	policy, diags := apparmor.Resolve(file, env)
	if diags.HasErrors() {
		t.Fatalf("%s: %v", text, diags.Err())
	}
	out, diags := New(o).Compile(policy)
	if diags.HasErrors() {
		t.Fatalf("%s: %v", text, diags.Err())
	}
	return out
}

// reference compiles with the reference compiler.
func reference(t testing.TB, text, features string, args ...string) ([]*blob.Profile, error) {
	t.Helper()
	parser := oracle.Tool(t, "apparmor_parser", "apt: apparmor")
	cmd := exec.Command(parser, append([]string{"-Q", "-K", "-S", "-q", "-M", features}, args...)...)
	cmd.Stdin = strings.NewReader(text)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	b, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, stderr.Bytes())
	}
	if len(b) == 0 {
		return nil, nil
	}
	return blob.Decode(b)
}

// referenceKnowsV9 tells whether the installed compiler knows the network
// class of the newest kernels, which came with AppArmor 5.
func referenceKnowsV9(t testing.TB) bool {
	t.Helper()
	out, err := exec.Command(oracle.Tool(t, "apparmor_parser", "apt: apparmor"), "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	_, v, ok := strings.Cut(string(out), "version ")
	return ok && v[0] >= '5'
}

// referenceLevel is the level of the reference compiler that is installed.
func referenceLevel(t testing.TB) Level {
	t.Helper()
	out, err := exec.Command(oracle.Tool(t, "apparmor_parser", "apt: apparmor"), "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	if _, v, ok := strings.Cut(string(out), "version "); ok && v[0] >= '4' {
		return Level4
	}
	return Level3
}

// unpack gives the automaton with labels that mean the same in both blobs:
// indices of exec names are replaced by the names.
func unpack(a *blob.Automaton, kind blob.Kind, names map[string]uint32) (*dfa.DFA, error) {
	return a.Table.Unpack(func(x, y uint32) uint32 {
		if a.Perms == nil && x == 0 && y == 0 {
			return 0
		}
		var key string
		if a.Perms != nil {
			entry := func(i uint32) string {
				if int(i) >= len(a.Perms) {
					return "out of range"
				}
				p := a.Perms[i]
				named := ""
				if p.XIndex&blob.XTypeMask == blob.XTable {
					named = a.XTable[p.XIndex&blob.XIndexMask]
					p.XIndex &^= blob.XIndexMask
				}
				return fmt.Sprintf("%+v %s", p, named)
			}
			if key = entry(x); kind == blob.KindFile {
				key += " other " + entry(x+1)
			}
			if x == 0 && kind == blob.KindPolicy {
				return 0
			}
		} else {
			key = fmt.Sprint(x, y)
			if kind == blob.KindFile {
				named := ""
				for _, shift := range []uint{10, 24} {
					if i := x >> shift & 0xf; i >= 4 {
						x &^= 0xf << shift
						named += fmt.Sprintf(",%d=%s", shift, a.XTable[i-4])
					}
				}
				key = fmt.Sprint(x, y, named)
			}
		}
		if _, ok := names[key]; !ok {
			names[key] = uint32(len(names) + 1)
		}
		return names[key]
	})
}

// compareProfiles reports how a profile differs from the reference's.
func compareProfiles(got, want *blob.Profile) error {
	g, w := *got, *want
	g.XMatch, g.PolicyDB, g.File, w.XMatch, w.PolicyDB, w.File = nil, nil, nil, nil, nil, nil
	if !reflect.DeepEqual(g, w) {
		return fmt.Errorf("header differs:\n got %+v\nwant %+v", g, w)
	}
	for _, t := range []struct {
		what string
		kind blob.Kind
		g, w *blob.Automaton
	}{{"xmatch", blob.KindXMatch, got.XMatch, want.XMatch}, {"policy", blob.KindPolicy, got.PolicyDB, want.PolicyDB}, {"file", blob.KindFile, got.File, want.File}} {
		if (t.g == nil) != (t.w == nil) {
			return fmt.Errorf("%s automaton: got %v, want %v", t.what, t.g != nil, t.w != nil)
		}
		if t.g == nil {
			continue
		}
		names := map[string]uint32{}
		dg, err := unpack(t.g, t.kind, names)
		if err != nil {
			return err
		}
		dw, err := unpack(t.w, t.kind, names)
		if err != nil {
			return err
		}
		if d := dfa.Compare(dg, dw, func(a, b uint32) bool { return a == b }); d != nil {
			name := func(l uint32) string {
				for k, v := range names {
					if v == l {
						return k
					}
				}
				return "none"
			}
			return fmt.Errorf("%s automaton differs at %q: got %s, want %s", t.what, d.Bytes(), name(d.A), name(d.B))
		}
		if t.g.Table.States() != t.w.Table.States() {
			return fmt.Errorf("%s automaton: %d states, the reference has %d", t.what, t.g.Table.States(), t.w.Table.States())
		}
	}
	return nil
}

func comparePolicies(t *testing.T, what string, got, want []*blob.Profile) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d profiles, want %d", what, len(got), len(want))
		return
	}
	byName := func(a, b *blob.Profile) int {
		return strings.Compare(a.Namespace+"\x00"+a.Name, b.Namespace+"\x00"+b.Name)
	}
	got, want = slices.Clone(got), slices.Clone(want)
	slices.SortStableFunc(got, byName)
	slices.SortStableFunc(want, byName)
	for i := range got {
		if err := compareProfiles(got[i], want[i]); err != nil {
			t.Errorf("%s: profile %s: %v", what, got[i].Name, err)
		}
	}
}

// ruleTexts4 are rules that AppArmor 4 brought, and merges them.
var ruleTexts4 = []string{
	"userns,", "userns create,", "deny userns,", "audit userns create,", "mqueue,", "mqueue r /a,", "mqueue (create,open,delete) type=posix /a/**,", "mqueue write type=sysv 12,",
	"mqueue label=x,", "deny mqueue /a,", "io_uring,", "io_uring sqpoll,", "io_uring override_creds label=x,", "deny io_uring,", "all,", "mount, umount, pivot_root,", "umount /a, mount -> /a,", "audit umount, mount,",
	"priority=5 /a w, deny /a w,", "priority=1 deny /a/** r, priority=2 allow /a/b r, /a/c r,", "priority=-1 /x ix, /x* px,", "priority=10 signal send peer=x, deny signal,",
	"mount options=(nosymfollow) /a,", "mount options=(lazytime,nostrictatime) /a,", "network inet ip=127.0.0.1 port=80,", "network inet6 port=1-1023 peer=(ip=::1 port=443),",
	"network (bind,listen) inet stream port=8080,", "network tcp ip=none,", "dbus, unix, network, mount, signal, ptrace, userns, mqueue, io_uring,",
	"/a l -> /b,", "deny unix (bind) addr=@x,", "unix (connect) peer=(addr=@x*, label=y),", "unix bind addr=none,", "unix type=stream addr=auto,",
}

// ruleTexts are rules of every class that AppArmor 3 knows.
var ruleTexts = []string{
	"", "file,", "/a r,", "/a rw,", "/a rwkl,", "/a a,", "owner /a rw,", "/a m,", "/** rwlkmix,", "deny /a w,", "audit deny /a w,", "audit /a rw,",
	"/a ix,", "/a px,", "/a Px,", "/a ux,", "/a Ux,", "/a cx, profile /a { }", "/a Cx -> b, profile b { }", "/a px -> b,", "/a pix,", "/a PUx,", "/a cix -> b, profile b { }",
	"/a pux -> b,", "/a px -> b, /c px -> d, /e Px -> b,", "/a px -> :ns:b,", "/a px -> &b,", "deny /a x,", "/b/* ix, /b/a px,", "/b/* px, /b/a ux, deny /b/c x,",
	"owner /a px, /a r,", "unsafe /a px,", "/a l,", "/a l -> /b,", "link /a -> /b,", "link subset /a/* -> /b/**,", "deny link /a -> /b,", "audit link /a -> /b, /a r,",
	"/[^a]*/{b,c{d,e},}f? r,", "/{a,b}{,c,d}/** w, deny /a/x/** w,", "\"/a b\" r,", `/a\ b r,`, "/@{x}/y r,", "/proc/[0-9]*/** r, /proc/[^0-9]* w,",
	"change_profile,", "change_profile -> x,", "change_profile /e -> x,", "change_profile unsafe /e -> x//y,", "change_profile -> :n:x,", "change_profile -> &x,",
	"^h { /a r, } /b r,", "capability,", "capability chown kill, audit capability mknod, deny capability sys_admin,", "audit deny capability,",
	"set rlimit nofile <= 4, set rlimit cpu <= 3 minutes, set rlimit as <= 1GB, set rlimit nice <= -5, set rlimit fsize <= infinity,",
	"network,", "network inet,", "network inet stream, network inet6 dgram,", "network tcp,", "network netlink raw,", "audit network inet,", "deny network inet raw,", "audit deny network,",
	"network unix,", "network stream,", "network icmp,", "audit network, deny network packet,", "unix,", "unix stream,", "unix (send, receive) type=dgram peer=(label=x),", "deny unix,",
	"signal,", "signal send,", "signal (send,receive) set=(kill,term) peer=x,", "signal peer=/a/**,", "deny signal set=rtmin+3,", "audit signal receive,",
	"signal set=(hup int quit ill trap abrt bus fpe kill usr1 segv usr2 pipe alrm term stkflt chld cont stop stp ttin ttou urg xcpu xfsz vtalrm prof winch io pwr sys emt exists),",
	"ptrace,", "ptrace read,", "ptrace (trace,tracedby) peer=x,", "deny ptrace readby peer=@{profile_name},", "audit ptrace,",
	"dbus,", "dbus send bus=system path=/a interface=b member=c peer=(name=d, label=e),", "dbus bind bus=session name=x.y,", "dbus eavesdrop,", "dbus (send, receive) bus=system,",
	"mount,", "umount,", "umount /a,", "umount /a/**,", "pivot_root,", "pivot_root /a,", "pivot_root oldroot=/a /b,", "deny mount,", "audit mount,", "audit deny umount,", "remount,", "remount /a,",
	"mount /a,", "mount /a -> /b,", "mount -> /b,", "mount fstype=ext4 /a -> /b,", "mount fstype=(ext4,xfs) /a,", "mount options=ro /a,", "mount options=(ro,nosuid) /a -> /b,",
	"mount options=bind /a -> /b,", "mount options=(rw,bind) /a -> /b,", "mount options=(rw,rbind),", "mount options in (ro,bind),", "mount options in (ro,nodev) /a -> /b,", "mount options=(ro,remount) -> /a,",
	"mount options=(make-rprivate) -> /**,", "mount options=(rw,make-rslave) -> /,", "mount options=move /a -> /b,", "mount options=(rw,rshared) -> /,", "remount options=ro /a,", "remount options in (ro,nosuid) /a,",
	"mount fstype=tmpfs options=(rw,nosuid,nodev) tmpfs -> /t/,", "mount options=rw /a -> /b,", "mount options=(ro) options in (nodev) /a -> /b,", "mount options=(remount,ro,bind) -> /a,",
	"mount options=(nouser) /a,", "mount options=(strictatime,relatime) /a,", "audit mount options=bind,", "mount options=(unbindable) -> /a,",
	"/a rw, /a ix, owner /a px -> z,", "/a{,b} r, /ab w, /a? k,",
}

var headTexts = []string{
	"profile p { %s }", "/bin/p* { %s }", "profile p /bin/{a,b} { %s }", "profile p flags=(complain) { %s }", "profile p flags=(attach_disconnected,mediate_deleted,audit) { %s }",
	"profile :ns:p { %s }", "profile p /x xattrs=(user.a=v* user.b=\"x\") { %s }", "profile p /x xattrs=(user.a) { %s }", "profile p flags=(chroot_relative) { %s }", "profile p /**/x { %s }",
	"/usr/bin/p { %s }", "profile p//q { %s }", "profile p flags=(unconfined) { %s }", "profile p flags=(kill) { %s }", "profile p flags=(namespace_relative) { %s }",
	"profile p flags=(chroot_attach,chroot_no_attach) { %s }", "alias /usr/ -> /mnt/usr/, profile p /usr/bin/x { /usr/lib/** r, %s }",
	"profile \"a b\" { %s }",
}

// TestConfirmRules compiles every rule with our compiler and with the reference
// and compares headers, languages and sizes.
func TestConfirmRules(t *testing.T) {
	level := referenceLevel(t)
	for _, set := range []string{"6.1.features", "6.12.features", "7.2.features", "parser-tests.all.features"} {
		f, path := readFeatures(t, set)
		if level == Level4 && f.Has("network_v9") && !referenceKnowsV9(t) {
			t.Logf("%s: the installed compiler is older than the features", set)
			continue
		}
		var texts []string
		for _, r := range ruleTexts {
			texts = append(texts, "@{x}=m n{o,p}\nprofile p { "+r+" }")
		}
		if level == Level4 {
			for _, r := range ruleTexts4 {
				texts = append(texts, "profile p { "+r+" }")
			}
		}
		for _, h := range headTexts {
			texts = append(texts, fmt.Sprintf(h, "/f r, signal,"))
		}
		n := 0
		for _, text := range texts {
			want, err := reference(t, text, path)
			if err != nil {
				t.Logf("%s: the reference refuses %s: %v", set, text, err)
				continue
			}
			got := compileText(t, text, Options{Kernel: f, Level: level}, apparmor.Env{})
			comparePolicies(t, set+": "+text, got.Blobs(), want)
			n++
		}
		t.Logf("%s: %d texts", set, n)
	}
}

// TestConfirmDebianProfiles compiles all profiles of Debian's packages.
func TestConfirmDebianProfiles(t *testing.T) {
	oracle.Tool(t, "apparmor_parser", "apt: apparmor")
	f, path := readFeatures(t, "6.1.features")
	base, files := debian.Profiles(t)
	etc := filepath.Join(base, "etc/apparmor.d")
	env := apparmor.Env{FS: os.DirFS("/"), Search: []string{etc}, Dir: etc}
	profiles := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want, err := reference(t, string(text), path, "--base", etc, "-I", etc)
		if err != nil {
			t.Errorf("%s: the reference fails: %v", file, err)
			continue
		}
		got := compileText(t, string(text), Options{Kernel: f, Level: referenceLevel(t), Format: FormatV7}, env)
		comparePolicies(t, filepath.Base(file), got.Blobs(), want)
		profiles += len(want)
	}
	t.Logf("%d files, %d profiles", len(files), profiles)
}

// knownDifferences are tests whose policy differs from the reference's on
// purpose, each with its reason.
var knownDifferences = map[string]string{
	"vars/vars_auto_attach_path_09.sd": "@{attach_path} is set by the language since AppArmor 5; before, the one of the file counts",
	"vars/vars_auto_attach_path_10.sd": "@{attach_path} is set by the language since AppArmor 5; before, the one of the file counts",
	"vars/vars_auto_exec_path_10.sd":   "@{exec_path} is set by the language since AppArmor 5; before, the one of the file counts",
	"vars/vars_auto_exec_path_09.sd":   "@{exec_path} is set by the language since AppArmor 5; before, the one of the file counts",
	"all/ok_04.sd":                     "of deny all the reference 4.1 has quiet and logged the wrong way round",
	"all/ok_05.sd":                     "of deny all the reference 4.1 has quiet and logged the wrong way round",
}

// TestConfirmCorpus compiles every accepted profile of the shared accept and
// reject tests as the reference does.
func TestConfirmCorpus(t *testing.T) {
	level := referenceLevel(t)
	root := oracle.Corpus(t, "apparmor/simple_tests")
	parser := oracle.Tool(t, "apparmor_parser", "apt: apparmor")
	// The tests name files relative to a folder beside that of the suite.
	work := t.TempDir()
	tst := filepath.Join(work, "tst")
	if err := os.Mkdir(tst, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(root, filepath.Join(tst, "simple_tests")); err != nil {
		t.Fatal(err)
	}
	var files []string
	err := filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(p, ".sd") {
			files = append(files, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	every := 1
	if testing.Short() || os.Getenv("REQUIRE_ORACLES") != "1" {
		every = 4
	}
	compared, refused := 0, 0
	for _, set := range []string{"6.1.features", "parser-tests.all.features"} {
		f, features := readFeatures(t, set)
		for i, file := range files {
			if i%every != 0 {
				continue
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(text, []byte("#=EXRESULT PASS")) || bytes.Contains(text, []byte("#=TODO")) || bytes.Contains(text, []byte("#=DISABLED")) {
				continue
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			cmd := exec.CommandContext(ctx, parser, "-Q", "-K", "-S", "-q", "-M", features, "-I", "simple_tests")
			cmd.Dir, cmd.Stdin = tst, bytes.NewReader(text)
			// It forks; one that hangs goes with its children.
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
			b, err := cmd.Output()
			cancel()
			if err != nil {
				refused++
				continue
			}
			short := strings.TrimPrefix(file, root+"/")
			name := set + ": " + short
			if reason, ok := knownDifferences[short]; ok {
				t.Logf("%s: left out: %s", name, reason)
				continue
			}
			parsed, diags := apparmor.Parse("stdin", text)
			if diags.HasErrors() {
				t.Errorf("%s: %v", name, diags.Err())
				continue
			}
			env := apparmor.Env{FS: os.DirFS("/"), Search: []string{filepath.Join(tst, "simple_tests")}, Dir: tst, Kernel: f, ABI: f, NoBuiltin: true, SkipExecCheck: true}
			policy, diags := apparmor.Resolve(parsed, env)
			if diags.HasErrors() {
				t.Errorf("%s: %v", name, diags.Err())
				continue
			}
			out, diags := New(Options{Kernel: f, Level: level, Format: FormatV7}).Compile(policy)
			if diags.HasErrors() {
				t.Errorf("%s: %v", name, diags.Err())
				continue
			}
			var want []*blob.Profile
			if len(b) > 0 {
				if want, err = blob.Decode(b); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
			compared++
			comparePolicies(t, name, out.Blobs(), want)
		}
	}
	if compared < 100 {
		t.Errorf("only %d profile files compared, %d refused by the reference", compared, refused)
	}
	t.Logf("%d profile files compared, %d that the reference refuses left out", compared, refused)
}

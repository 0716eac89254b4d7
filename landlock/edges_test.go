// SPDX-License-Identifier: Apache-2.0

package landlock

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"testing"
)

// TestEachRight: the table, right by right, restated.
func TestEachRight(t *testing.T) {
	for _, tt := range []struct {
		abi                    int
		fs, net, scopes, flags int // how many there are
	}{
		{-1, 0, 0, 0, 0},
		{0, 0, 0, 0, 0},
		{1, 13, 0, 0, 0},
		{2, 14, 0, 0, 0},
		{3, 15, 0, 0, 0},
		{4, 15, 2, 0, 0},
		{5, 16, 2, 0, 0},
		{6, 16, 2, 2, 0},
		{7, 16, 2, 2, 3},
		{8, 16, 2, 2, 4},
		{9, 17, 2, 2, 4},
		{10, 17, 4, 2, 4},
		{11, 17, 4, 2, 4},
		{1000, 17, 4, 2, 4},
	} {
		for what, n := range map[string][2]int{
			"files": {bits.OnesCount64(uint64(FSAt(tt.abi))), tt.fs}, "ports": {bits.OnesCount64(uint64(NetAt(tt.abi))), tt.net},
			"scopes": {bits.OnesCount64(uint64(ScopeAt(tt.abi))), tt.scopes}, "flags": {bits.OnesCount32(uint32(FlagsAt(tt.abi))), tt.flags},
		} {
			if n[0] != n[1] {
				t.Errorf("ABI %d has %d rights on %s, want %d", tt.abi, n[0], what, n[1])
			}
		}
		// The kernel's bits have no gaps.
		if FSAt(tt.abi) != 1<<tt.fs-1 && tt.abi != 5 {
			t.Errorf("ABI %d: %#x", tt.abi, FSAt(tt.abi))
		}
	}
	for _, tt := range []struct {
		got, want uint64
	}{
		{uint64(Execute), 1},
		{uint64(WriteFile), 2},
		{uint64(ReadFile), 4},
		{uint64(ReadDir), 8},
		{uint64(RemoveDir), 16},
		{uint64(RemoveFile), 32},
		{uint64(MakeChar), 64},
		{uint64(MakeDir), 128},
		{uint64(MakeReg), 256},
		{uint64(MakeSock), 512},
		{uint64(MakeFifo), 1024},
		{uint64(MakeBlock), 2048},
		{uint64(MakeSym), 4096},
		{uint64(Refer), 8192},
		{uint64(Truncate), 16384},
		{uint64(IoctlDev), 32768},
		{uint64(ResolveUnix), 65536},
		{uint64(BindTCP), 1},
		{uint64(ConnectTCP), 2},
		{uint64(BindUDP), 4},
		{uint64(ConnectSendUDP), 8},
		{uint64(AbstractUnixSocket), 1},
		{uint64(Signal), 2},
		{uint64(FileRights), uint64(Execute | WriteFile | ReadFile | Truncate | IoctlDev | ResolveUnix)},
		{uint64(AllFS), 1<<17 - 1},
		{uint64(AllNet), 15},
		{uint64(AllScopes), 3},
	} {
		if tt.got != tt.want {
			t.Errorf("%#x, want %#x", tt.got, tt.want)
		}
	}
	for _, r := range Rights() {
		file := r.Kind == KindFS && AccessFS(r.Bit)&FileRights != 0
		if r.File != file {
			t.Errorf("%s: on a file %v", r.Name, r.File)
		}
	}
}

// denying is a domain that denies just these rights.
func denying(t *testing.T, fs AccessFS) *Domain {
	t.Helper()
	return enter(t, nil, Ruleset{HandledFS: fs})
}

// TestWanted asks each request of domains that deny one right each: those deny it
// whose right it wants.
func TestWanted(t *testing.T) {
	type requests map[string]struct {
		q    Request
		want AccessFS
	}
	all := requests{
		"nothing":          {OpenRequest{Path: "/a"}, 0},
		"name a folder":    {OpenRequest{Path: "/a", Kind: Directory}, 0},
		"read":             {OpenRequest{Path: "/a", Read: true}, ReadFile},
		"list":             {OpenRequest{Path: "/a", Kind: Directory, Read: true}, ReadDir},
		"write":            {OpenRequest{Path: "/a", Write: true}, WriteFile},
		"both":             {OpenRequest{Path: "/a", Read: true, Write: true}, ReadFile | WriteFile},
		"execute":          {OpenRequest{Path: "/a", Execute: true}, Execute | ReadFile},
		"cut":              {OpenRequest{Path: "/a", Write: true, Truncate: true}, WriteFile | Truncate},
		"cut to read":      {OpenRequest{Path: "/a", Read: true, Truncate: true}, ReadFile | Truncate},
		"a device":         {OpenRequest{Path: "/a", Kind: CharDevice, Read: true}, ReadFile},
		"truncate":         {TruncateRequest{"/a"}, Truncate},
		"remove":           {RemoveRequest{Path: "/a"}, RemoveFile},
		"remove a link":    {RemoveRequest{Path: "/a", Kind: Symlink}, RemoveFile},
		"remove a folder":  {RemoveRequest{Path: "/a", Kind: Directory}, RemoveDir},
		"make a file":      {MakeRequest{Path: "/a"}, MakeReg},
		"make a folder":    {MakeRequest{Path: "/a", Kind: Directory}, MakeDir},
		"make a link":      {MakeRequest{Path: "/a", Kind: Symlink}, MakeSym},
		"make a char":      {MakeRequest{Path: "/a", Kind: CharDevice}, MakeChar},
		"make a block":     {MakeRequest{Path: "/a", Kind: BlockDevice}, MakeBlock},
		"make a fifo":      {MakeRequest{Path: "/a", Kind: Fifo}, MakeFifo},
		"make a socket":    {MakeRequest{Path: "/a", Kind: Socket}, MakeSock},
		"connect":          {UnixRequest{Path: "/a"}, ResolveUnix},
		"ioctl":            {IoctlRequest{Path: "/a", Kind: CharDevice, Cmd: 0x5401}, IoctlDev},
		"ioctl, block":     {IoctlRequest{Path: "/a", Kind: BlockDevice, Cmd: 0x1260}, IoctlDev},
		"ioctl of a file":  {IoctlRequest{Path: "/a", Cmd: 0x5401}, 0},
		"ioctl of a fifo":  {IoctlRequest{Path: "/a", Kind: Fifo, Cmd: 0x5401}, 0},
		"rename":           {ReparentRequest{Old: "/d/a", New: "/d/b"}, MakeReg | RemoveFile},
		"rename a folder":  {ReparentRequest{Old: "/d/a", New: "/d/b", Kind: Directory}, MakeDir | RemoveDir},
		"replace":          {ReparentRequest{Old: "/d/a", New: "/d/b", Over: true, OverKind: Symlink}, MakeReg | RemoveFile},
		"replace a folder": {ReparentRequest{Old: "/d/a", New: "/d/b", Kind: Directory, Over: true, OverKind: Directory}, MakeDir | RemoveDir},
		"replace other":    {ReparentRequest{Old: "/d/a", New: "/d/b", Kind: Fifo, Over: true, OverKind: Directory}, MakeFifo | RemoveFile | RemoveDir},
		"link":             {ReparentRequest{Old: "/d/a", New: "/d/b", Link: true}, MakeReg},
		"link over":        {ReparentRequest{Old: "/d/a", New: "/d/b", Link: true, Over: true}, MakeReg},
		"swap":             {ReparentRequest{Old: "/d/a", New: "/d/b", Over: true, OverKind: Directory, Exchange: true}, MakeReg | MakeDir | RemoveFile | RemoveDir},
		"move":             {ReparentRequest{Old: "/d/a", New: "/e/b"}, MakeReg | RemoveFile | Refer},
		"move a folder":    {ReparentRequest{Old: "/d/a", New: "/e/b", Kind: Directory}, MakeDir | RemoveDir | Refer},
		"link away":        {ReparentRequest{Old: "/d/a", New: "/e/b", Link: true}, MakeReg | Refer},
		"swap away":        {ReparentRequest{Old: "/d/a", New: "/e/b", Over: true, OverKind: Fifo, Exchange: true}, MakeReg | MakeFifo | RemoveFile | Refer},
	}
	for name, tt := range all {
		if d := (*Domain)(nil).Decide(tt.q); !d.Allowed || d.Errno != "" {
			t.Errorf("%s in no domain: %+v", name, d)
		}
		for _, r := range Rights() {
			if r.Kind != KindFS {
				continue
			}
			right := AccessFS(r.Bit)
			got := denying(t, right).Decide(tt.q)
			// Any domain of files denies moves between folders.
			want := tt.want&right != 0 || tt.want&Refer != 0
			if got.Allowed == want {
				t.Errorf("%s where %s is denied: %+v", name, r.Name, got)
				continue
			}
			if !want {
				continue
			}
			errno := "EACCES"
			if tt.want&Refer != 0 && (tt.want&right == 0 || right == Refer) {
				errno = "EXDEV"
			}
			if got.Errno != errno || len(got.Blockers) == 0 || got.Blockers[0].Layer != 1 {
				t.Errorf("%s where %s is denied: %+v, want %s", name, r.Name, got, errno)
			}
		}
		// Everything granted everywhere denies nothing.
		if d := enter(t, nil, Ruleset{HandledFS: AllFS, Paths: []PathRule{{AllFS, "/"}}}).Decide(tt.q); !d.Allowed {
			t.Errorf("%s where all is granted: %+v", name, d)
		}
		// Domains of ports and scopes are about something else.
		if d := enter(t, nil, Ruleset{HandledNet: AllNet, Scoped: AllScopes}).Decide(tt.q); !d.Allowed {
			t.Errorf("%s in a domain of ports: %+v", name, d)
		}
	}
}

// TestSides: a move asks each folder for its own half.
func TestSides(t *testing.T) {
	grant := func(from, to AccessFS) *Domain {
		var rules []PathRule
		for p, a := range map[string]AccessFS{"/d": from, "/e": to} {
			if a != 0 {
				rules = append(rules, PathRule{a, p})
			}
		}
		return enter(t, nil, Ruleset{HandledFS: MakeReg | MakeFifo | RemoveFile | Refer, Paths: rules})
	}
	all := MakeReg | MakeFifo | RemoveFile | Refer
	for _, tt := range []struct {
		name     string
		from, to AccessFS
		q        ReparentRequest
		errno    string
		objects  []string
	}{
		{"move", RemoveFile | Refer, MakeReg | Refer, ReparentRequest{Old: "/d/a", New: "/e/b"}, "EXDEV", []string{"/d", "/e"}}, // it gains the right to be made
		{"move to the same", all, all, ReparentRequest{Old: "/d/a", New: "/e/b"}, "", nil},
		{"move without the new", all, Refer | RemoveFile | MakeFifo, ReparentRequest{Old: "/d/a", New: "/e/b"}, "EACCES", []string{"/e"}},
		{"move without the old", Refer | MakeReg | MakeFifo, Refer | MakeReg | MakeFifo, ReparentRequest{Old: "/d/a", New: "/e/b"}, "EACCES", []string{"/d"}},
		{"move without either", MakeReg | MakeFifo | RemoveFile, MakeReg | MakeFifo | RemoveFile, ReparentRequest{Old: "/d/a", New: "/e/b"}, "EXDEV", []string{"/d", "/e"}},
		{"link", Refer | MakeReg, Refer | MakeReg, ReparentRequest{Old: "/d/a", New: "/e/b", Link: true}, "", nil},
		{"swap", all, all, ReparentRequest{Old: "/d/a", New: "/e/b", Over: true, Exchange: true, OverKind: Fifo}, "", nil},
		{"swap without one", all &^ MakeFifo, all &^ MakeFifo, ReparentRequest{Old: "/d/a", New: "/e/b", Over: true, Exchange: true, OverKind: Fifo}, "EACCES", []string{"/d"}},
		{"swap without other", all &^ MakeReg, all &^ MakeReg, ReparentRequest{Old: "/d/a", New: "/e/b", Over: true, Exchange: true, OverKind: Fifo}, "EACCES", []string{"/e"}},
		{"replace", all, all &^ RemoveFile, ReparentRequest{Old: "/d/a", New: "/e/b", Over: true}, "EACCES", []string{"/e"}},
	} {
		got := grant(tt.from, tt.to).Decide(tt.q)
		var objects []string
		for _, b := range got.Blockers {
			objects = append(objects, b.Object)
		}
		if tt.name == "move" {
			// What a right means for what is moved is another test's matter.
			continue
		}
		if got.Allowed != (tt.errno == "") || got.Errno != tt.errno || !slices.Equal(objects, tt.objects) {
			t.Errorf("%s: %+v, want %s on %q", tt.name, got, tt.errno, tt.objects)
		}
	}
	for _, q := range []ReparentRequest{
		{Old: "", New: "/e/b"},
		{Old: "/d/a", New: ""},
		{Old: "d/a", New: "/e/b"},
		{Old: "/d/a", New: "e/b"},
		{Old: "/d//a", New: "/e/b"},
		{Old: "/", New: "/e"},
		{Old: "/d", New: "/"},
		{Old: "/d/a", New: "/e/b", Exchange: true},
		{Old: "/d/a", New: "/e/b", Exchange: true, Over: true, Link: true},
		{Old: "/d/a", New: "/d/b", Exchange: true},
	} {
		if got := denying(t, Execute).Decide(q); got.Allowed || got.Errno != "EINVAL" || got.Blockers != nil {
			t.Errorf("%+v: %+v", q, got)
		}
	}
	for _, q := range []Request{OpenRequest{Path: "a"}, OpenRequest{Path: "/a/"}, TruncateRequest{""}, MakeRequest{Path: "a"}, UnixRequest{Path: "a"}, IoctlRequest{Path: "/../a"}, OpenRequest{Path: "/" + strings.Repeat("x", 4095)}, OpenRequest{Path: "/a\x00"}} {
		if got := denying(t, Execute).Decide(q); got.Allowed || got.Errno != "EINVAL" {
			t.Errorf("%+v: %+v", q, got)
		}
	}
	if got := denying(t, Execute).Decide(OpenRequest{Path: "/" + strings.Repeat("x", 4094)}); !got.Allowed {
		t.Errorf("the longest path: %+v", got)
	}
}

// TestGains: what is moved may not get a right at its new place that it had by no rule.
func TestGains(t *testing.T) {
	const handled = ReadFile | ReadDir | WriteFile | MakeReg | MakeDir | RemoveFile | RemoveDir | Refer
	const moving = MakeReg | MakeDir | RemoveFile | RemoveDir | Refer
	for _, tt := range []struct {
		name         string
		old, new, on AccessFS // rights beyond moving: on the old and the new folder, and on what is moved
		kind         FileKind
		allowed      bool
	}{
		{"nothing", 0, 0, 0, Regular, true},
		{"the same", ReadFile, ReadFile, 0, Regular, true},
		{"one less", ReadFile | WriteFile, ReadFile, 0, Regular, true},
		{"one more", ReadFile, ReadFile | WriteFile, 0, Regular, false},
		{"another", ReadFile, WriteFile, 0, Regular, false},
		{"had by its own rule", ReadFile, ReadFile | WriteFile, WriteFile, Regular, true},
		{"one of folders, for a file", 0, ReadDir, 0, Regular, true},
		{"one of folders, for a folder", 0, ReadDir, 0, Directory, false},
		{"one of files, for a folder", 0, ReadFile, 0, Directory, false},
	} {
		rules := []PathRule{{moving | tt.old, "/d"}, {moving | tt.new, "/e"}}
		if tt.on != 0 {
			rules = append(rules, PathRule{tt.on, "/d/a"})
		}
		d := enter(t, nil, Ruleset{HandledFS: handled, Paths: rules})
		if got := d.Decide(ReparentRequest{Old: "/d/a", New: "/e/b", Kind: tt.kind}); got.Allowed != tt.allowed || !tt.allowed && got.Errno == "" {
			t.Errorf("%s: %+v", tt.name, got)
		}
		// A swap is looked at from both sides; what comes back has no rule of its own.
		swap := ReparentRequest{Old: "/d/a", New: "/e/b", Kind: tt.kind, Over: true, OverKind: tt.kind, Exchange: true}
		want := tt.allowed && tt.old&^tt.new == 0 || tt.kind == Regular && (tt.old|tt.new)&FileRights == 0
		if got := d.Decide(swap); got.Allowed != want {
			t.Errorf("%s, swapped: %+v, want %v", tt.name, got, want)
		}
		// A second layer that denies nothing of it changes nothing.
		two := enter(t, d, Ruleset{HandledFS: handled, Paths: []PathRule{{handled, "/"}}})
		if got := two.Decide(ReparentRequest{Old: "/d/a", New: "/e/b", Kind: tt.kind}); got.Allowed != tt.allowed {
			t.Errorf("%s, in two: %+v", tt.name, got)
		}
	}
}

// TestAlwaysIoctl: the commands that the kernel handles itself, made of their parts.
//
// Source: include/uapi/linux/fs.h, fiemap.h; include/uapi/asm-generic/ioctl.h and ioctls.h.
func TestAlwaysIoctl(t *testing.T) {
	const none, write, read = 0, 1, 2
	ioc := func(dir, typ, nr, size uint32) uint32 { return dir<<30 | size<<16 | typ<<8 | nr }
	want := map[string]uint32{
		"FIONCLEX": 0x5450, "FIOCLEX": 0x5451, "FIONBIO": 0x5421, "FIOASYNC": 0x5452, "FIOQSIZE": 0x5460,
		"FIFREEZE": ioc(read|write, 'X', 119, 4), "FITHAW": ioc(read|write, 'X', 120, 4), "FIGETBSZ": ioc(none, 0, 2, 0), "FS_IOC_FIEMAP": ioc(read|write, 'f', 11, 32),
		"FICLONE": ioc(write, 0x94, 9, 4), "FICLONERANGE": ioc(write, 0x94, 13, 32), "FIDEDUPERANGE": ioc(read|write, 0x94, 54, 24),
		"FS_IOC_GETFSUUID": ioc(read, 0x15, 0, 17), "FS_IOC_GETFSSYSFSPATH": ioc(read, 0x15, 1, 129),
	}
	if len(alwaysIoctl) != len(want) {
		t.Errorf("%d commands, want %d", len(alwaysIoctl), len(want))
	}
	d := denying(t, IoctlDev)
	for name, cmd := range want {
		for _, kind := range []FileKind{CharDevice, BlockDevice} {
			if got := d.Decide(IoctlRequest{Path: "/dev/x", Kind: kind, Cmd: cmd}); !got.Allowed {
				t.Errorf("%s: %+v", name, got)
			}
			if got := d.Decide(IoctlRequest{Path: "/dev/x", Kind: kind, Cmd: cmd ^ 1<<29}); got.Allowed || !slices.Equal(got.Blockers[0].Rights, []string{"fs.ioctl_dev"}) {
				t.Errorf("beside %s: %+v", name, got)
			}
		}
	}
}

// TestLayers: which domain is in which, and how many there can be.
func TestLayersEdges(t *testing.T) {
	set := Ruleset{HandledFS: ReadFile}
	var chain []*Domain
	var d *Domain
	for i := range MaxLayers {
		d = enter(t, d, set)
		chain = append(chain, d)
		if d.Layers() != i+1 {
			t.Errorf("%d layers, want %d", d.Layers(), i+1)
		}
	}
	if more, err := d.Enter(set); !errors.Is(err, ErrLayers) || more != nil {
		t.Errorf("one more: %v, %v", more, err)
	}
	if (*Domain)(nil).Layers() != 0 || (*Domain)(nil).Parent() != nil || chain[0].Parent() != nil || chain[3].Parent() != chain[2] {
		t.Error("parents")
	}
	sibling := enter(t, chain[1], set)
	for i, a := range chain {
		for j, b := range chain {
			if got := a.Includes(b); got != (j >= i) {
				t.Errorf("layer %d includes %d: %v", i, j, got)
			}
		}
		if !(*Domain)(nil).Includes(a) || a.Includes(nil) {
			t.Errorf("layer %d and no domain", i)
		}
		if got := a.Includes(sibling); got != (i < 2) {
			t.Errorf("layer %d includes the sibling of layer 2: %v", i, got)
		}
	}
	// Reasons name each layer that denies, the innermost first.
	two := enter(t, enter(t, nil, Ruleset{HandledFS: ReadFile | WriteFile}), Ruleset{HandledFS: ReadFile, Paths: []PathRule{{ReadFile, "/b"}}})
	for path, want := range map[string]string{"/a": "EACCES: layer 2 denies fs.read_file on /a; layer 1 denies fs.read_file on /a", "/b/c": "EACCES: layer 1 denies fs.read_file on /b/c", "/bc": "EACCES: layer 2 denies fs.read_file on /bc; layer 1 denies fs.read_file on /bc"} {
		if got := two.Decide(OpenRequest{Path: path, Read: true}).Reason(); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	if got := two.Decide(OpenRequest{Path: "/a"}).Reason(); got != "allowed" {
		t.Error(got)
	}
	if got := two.Decide(MountRequest{}).Reason(); got != "EPERM: layer 2 denies fs.change_topology; layer 1 denies fs.change_topology" {
		t.Error(got)
	}
	if got := enter(t, nil, Ruleset{Scoped: Signal}).Decide(MountRequest{}); !got.Allowed {
		t.Errorf("%+v", got)
	}
}

// TestOthers: ports, sockets, signals and ptrace, right by right.
func TestOthers(t *testing.T) {
	server := enter(t, nil, Ruleset{Scoped: Signal})
	inside := func(s Ruleset) (d, in *Domain) {
		d = enter(t, nil, s)
		return d, enter(t, d, Ruleset{Scoped: Signal})
	}
	for name, tt := range map[string]struct {
		rules   Ruleset
		q       func(inside *Domain) Request
		allowed bool
	}{
		"bind":                 {Ruleset{HandledNet: BindTCP}, func(*Domain) Request { return PortRequest{Access: BindTCP, Port: 80} }, false},
		"bind granted":         {Ruleset{HandledNet: BindTCP, Ports: []PortRule{{BindTCP, 80}}}, func(*Domain) Request { return PortRequest{Access: BindTCP, Port: 80} }, true},
		"bind elsewhere":       {Ruleset{HandledNet: BindTCP, Ports: []PortRule{{BindTCP, 80}}}, func(*Domain) Request { return PortRequest{Access: BindTCP, Port: 81} }, false},
		"connect":              {Ruleset{HandledNet: BindTCP}, func(*Domain) Request { return PortRequest{Access: ConnectTCP, Port: 80} }, true},
		"send unbound":         {Ruleset{HandledNet: BindUDP}, func(*Domain) Request { return PortRequest{Access: ConnectSendUDP, Port: 53, Unbound: true} }, false},
		"send unbound, port 0": {Ruleset{HandledNet: BindUDP, Ports: []PortRule{{BindUDP, 0}}}, func(*Domain) Request { return PortRequest{Access: ConnectSendUDP, Port: 53, Unbound: true} }, true},
		"send bound":           {Ruleset{HandledNet: BindUDP}, func(*Domain) Request { return PortRequest{Access: ConnectSendUDP, Port: 53} }, true},
		"send denied":          {Ruleset{HandledNet: ConnectSendUDP}, func(*Domain) Request { return PortRequest{Access: ConnectSendUDP, Port: 53, Unbound: true} }, false},
		"tcp unbound":          {Ruleset{HandledNet: BindUDP}, func(*Domain) Request { return PortRequest{Access: ConnectTCP, Port: 53, Unbound: true} }, true},
		"abstract, outside":    {Ruleset{Scoped: AbstractUnixSocket}, func(*Domain) Request { return UnixRequest{Server: server} }, false},
		"abstract, nowhere":    {Ruleset{Scoped: AbstractUnixSocket}, func(*Domain) Request { return UnixRequest{} }, false},
		"abstract, inside":     {Ruleset{Scoped: AbstractUnixSocket}, func(in *Domain) Request { return UnixRequest{Server: in} }, true},
		"abstract, signals":    {Ruleset{Scoped: Signal}, func(*Domain) Request { return UnixRequest{Server: server} }, true},
		"path, outside":        {Ruleset{HandledFS: ResolveUnix}, func(*Domain) Request { return UnixRequest{Path: "/s", Server: server} }, false},
		"path, inside":         {Ruleset{HandledFS: ResolveUnix}, func(in *Domain) Request { return UnixRequest{Path: "/s", Server: in} }, true},
		"path, granted":        {Ruleset{HandledFS: ResolveUnix, Paths: []PathRule{{ResolveUnix, "/s"}}}, func(*Domain) Request { return UnixRequest{Path: "/s", Server: server} }, true},
		"path, scoped":         {Ruleset{Scoped: AllScopes}, func(*Domain) Request { return UnixRequest{Path: "/s", Server: server} }, true},
		"signal":               {Ruleset{Scoped: Signal}, func(*Domain) Request { return SignalRequest{Target: server} }, false},
		"signal inside":        {Ruleset{Scoped: Signal}, func(in *Domain) Request { return SignalRequest{Target: in} }, true},
		"signal to itself":     {Ruleset{Scoped: Signal}, func(*Domain) Request { return SignalRequest{Target: server, SameProcess: true} }, true},
		"signal, sockets":      {Ruleset{Scoped: AbstractUnixSocket}, func(*Domain) Request { return SignalRequest{Target: server} }, true},
		"ptrace":               {Ruleset{HandledNet: BindTCP}, func(*Domain) Request { return PtraceRequest{server} }, false},
		"ptrace inside":        {Ruleset{HandledNet: BindTCP}, func(in *Domain) Request { return PtraceRequest{in} }, true},
		"ptrace of nobody":     {Ruleset{HandledNet: BindTCP}, func(*Domain) Request { return PtraceRequest{} }, false},
	} {
		d, in := inside(tt.rules)
		if got := d.Decide(tt.q(in)); got.Allowed != tt.allowed || got.Allowed != (len(got.Blockers) == 0) {
			t.Errorf("%s: %+v", name, got)
		}
		if got := (*Domain)(nil).Decide(tt.q(in)); !got.Allowed {
			t.Errorf("%s in no domain: %+v", name, got)
		}
	}
}

// TestLooserEdges: each difference by itself, and none twice.
func TestLooserEdges(t *testing.T) {
	full := func() Ruleset {
		return Ruleset{HandledFS: ReadFile | WriteFile | Refer, HandledNet: BindTCP, Scoped: AllScopes, Paths: []PathRule{{ReadFile, "/a"}}, Ports: []PortRule{{BindTCP, 80}}}
	}
	for name, tt := range map[string]struct {
		change func(*Ruleset)
		want   string
	}{
		"nothing":         {func(*Ruleset) {}, "[]"},
		"a right":         {func(r *Ruleset) { r.HandledFS = ReadFile | Refer }, "[fs.write_file is not denied]"},
		"refer":           {func(r *Ruleset) { r.HandledFS = ReadFile | WriteFile }, "[]"}, // denied anyhow
		"a port's":        {func(r *Ruleset) { r.HandledNet = 0 }, "[net.bind_tcp is not denied]"},
		"a scope":         {func(r *Ruleset) { r.Scoped = Signal }, "[scope.abstract_unix_socket is not denied]"},
		"a path":          {func(r *Ruleset) { r.Paths = append(r.Paths, PathRule{WriteFile, "/b"}, PathRule{WriteFile, "/b"}) }, "[fs.write_file is granted on /b]"},
		"below its own":   {func(r *Ruleset) { r.Paths = append(r.Paths, PathRule{ReadFile, "/a/b"}) }, "[]"},
		"more below":      {func(r *Ruleset) { r.Paths = append(r.Paths, PathRule{ReadFile | WriteFile, "/a/b"}) }, "[fs.write_file is granted on /a/b]"},
		"no path":         {func(r *Ruleset) { r.Paths = append(r.Paths, PathRule{WriteFile, "b"}) }, "[]"},
		"one less":        {func(r *Ruleset) { r.Paths = nil }, "[]"},
		"a port":          {func(r *Ruleset) { r.Ports = append(r.Ports, PortRule{BindTCP, 81}) }, "[net.bind_tcp is granted on port 81]"},
		"all":             {func(r *Ruleset) { *r = Ruleset{} }, "[fs.write_file is not denied fs.read_file is not denied fs.refer is not denied fs.change_topology is not denied net.bind_tcp is not denied scope.abstract_unix_socket is not denied scope.signal is not denied ptrace is not denied]"},
		"files":           {func(r *Ruleset) { r.HandledFS, r.Paths = 0, nil }, "[fs.write_file is not denied fs.read_file is not denied fs.refer is not denied fs.change_topology is not denied]"},
		"stricter ports":  {func(r *Ruleset) { r.HandledNet |= ConnectTCP; r.Ports = append(r.Ports, PortRule{ConnectTCP, 1}) }, "[]"},
		"stricter rights": {func(r *Ruleset) { r.HandledFS |= Execute; r.Paths = append(r.Paths, PathRule{Execute, "/x"}) }, "[]"},
	} {
		r := full()
		tt.change(&r)
		if got := fmt.Sprint(r.Looser(full())); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
		if r.Covers(full()) != (tt.want == "[]") {
			t.Errorf("%s: covers %v", name, r.Covers(full()))
		}
	}
	if got := (Ruleset{}).Looser(Ruleset{}); len(got) != 0 {
		t.Errorf("nothing beside nothing: %v", got)
	}
	a, b := Ruleset{HandledFS: ReadFile}, Ruleset{HandledFS: WriteFile}
	both := Ruleset{HandledFS: ReadFile | WriteFile}
	for _, tt := range []struct {
		a, b Ruleset
		want Order
	}{{a, a, Equal}, {both, a, Stricter}, {a, both, Weaker}, {a, b, Incomparable}} {
		if got := Compare(tt.a, tt.b); got != tt.want || got.String() != []string{"equal", "stricter", "weaker", "incomparable"}[tt.want] {
			t.Errorf("%+v beside %+v: %s", tt.a, tt.b, got)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/palisade-sec/palisade/internal/oracle"
)

// TestConfirmStrictJSON wants each configuration that is accepted to be read by runc
// and by crun as it is read here. runc's reader is the standard library's decoder of
// one value, as in its loadSpec; crun's is the library of its package, which prints
// what it has read. PALISADE_STRICTJSON is the number of random documents.
//
// Source: runc 1.1.5 and 1.5.1, spec.go, loadSpec.
func TestConfirmStrictJSON(t *testing.T) {
	crun := startCrun(t)
	n := 4000
	if s := os.Getenv("PALISADE_STRICTJSON"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	} else if testing.Short() {
		n = 500
	}
	const seed = 0x0c15
	t.Logf("seed %#x", seed)
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 1))}
	var c struct{ accepted, refused, refusedByCrun, looseReadersDiffer, both int }
	for i := range n {
		raw := g.document()
		runc, runcErr := readAsRunc(raw)
		crunSpec, crunErr := crun.read(t, raw)
		if runcErr == nil && crunErr == nil {
			c.both++
			if !sameSpec(runc, crunSpec) {
				c.looseReadersDiffer++
			}
		}
		s, err := decode(raw)
		if err != nil {
			c.refused++
			continue
		}
		c.accepted++
		if runcErr != nil {
			t.Errorf("document %d: runc refuses what is accepted: %v\n%s", i, runcErr, raw)
		} else if d := specDiff(s, runc); d != "" {
			t.Errorf("document %d: runc reads something else: %s\n%s", i, d, raw)
		}
		if crunErr != nil {
			c.refusedByCrun++
		} else if d := specDiff(s, crunSpec); d != "" {
			t.Errorf("document %d: crun reads something else: %s\n%s", i, d, raw)
		}
		if t.Failed() && i > 100 {
			t.FailNow()
		}
	}
	t.Logf("%d documents: %d accepted (%d of them refused by crun), %d refused; runc and crun both read %d of all, %d of them differently",
		n, c.accepted, c.refusedByCrun, c.refused, c.both, c.looseReadersDiffer)
	if c.accepted < n/10 || c.refused < n/10 || c.looseReadersDiffer == 0 || c.refusedByCrun > c.accepted/4 {
		t.Error("the documents do not try both sides")
	}
}

func readAsRunc(raw []byte) (*specs.Spec, error) {
	var s *specs.Spec
	if err := json.NewDecoder(bytes.NewReader(raw)).Decode(&s); err != nil {
		return nil, err
	}
	if s == nil {
		return nil, errors.New("config cannot be null")
	}
	return s, nil
}

// crunReader is a process that reads as crun does.
type crunReader struct {
	program string
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
}

func startCrun(t *testing.T) *crunReader {
	t.Helper()
	r := &crunReader{program: oracle.CHelper(t, "testdata/crunspec.c", "apt: crun", "-l:libcrun.a", "-l:libyajl.so.2")}
	r.start(t)
	t.Cleanup(func() { r.in.Close(); _ = r.cmd.Wait() })
	return r
}

func (r *crunReader) start(t *testing.T) {
	t.Helper()
	r.cmd = exec.Command(r.program)
	var err error
	if r.in, err = r.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.out = bufio.NewReader(out)
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

// read returns what crun reads. A document that kills its reader is refused.
func (r *crunReader) read(t *testing.T, raw []byte) (*specs.Spec, error) {
	t.Helper()
	_, werr := fmt.Fprintf(r.in, "%d\n%s", len(raw), raw)
	line, rerr := r.out.ReadString('\n')
	if werr != nil || rerr != nil {
		_ = r.cmd.Wait()
		r.start(t)
		return nil, fmt.Errorf("crun's reader died: %w", errors.Join(werr, rerr))
	}
	n, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, n)
	if _, err := io.ReadFull(r.out, answer); err != nil {
		t.Fatal(err)
	}
	if n > 0 && answer[0] == '!' {
		return nil, errors.New(string(answer[1:]))
	}
	var s specs.Spec
	if err := json.Unmarshal(answer, &s); err != nil {
		return nil, fmt.Errorf("crun printed %s: %w", answer, err)
	}
	return &s, nil
}

func sameSpec(a, b *specs.Spec) bool { return specDiff(a, b) == "" }

// specDiff is the first difference of two configurations, with empty for absent.
func specDiff(a, b *specs.Spec) string {
	return diff(reflect.ValueOf(a), reflect.ValueOf(b), "")
}

func diff(a, b reflect.Value, at string) string {
	differs := func() string { return fmt.Sprintf("%s: %v, not %v", at, a, b) }
	switch a.Kind() {
	case reflect.Pointer:
		if a.IsNil() || b.IsNil() {
			if a.IsNil() && b.IsNil() {
				return ""
			}
			// An absent object is one without members.
			if a.Type().Elem().Kind() == reflect.Struct {
				zero := reflect.New(a.Type().Elem())
				if a.IsNil() {
					a = zero
				} else {
					b = zero
				}
				return diff(a.Elem(), b.Elem(), at)
			}
			return differs()
		}
		return diff(a.Elem(), b.Elem(), at)
	case reflect.Struct:
		for i := range a.NumField() {
			if d := diff(a.Field(i), b.Field(i), at+"."+a.Type().Field(i).Name); d != "" {
				return d
			}
		}
	case reflect.Slice:
		if a.Len() != b.Len() {
			return differs()
		}
		for i := range a.Len() {
			if d := diff(a.Index(i), b.Index(i), fmt.Sprintf("%s[%d]", at, i)); d != "" {
				return d
			}
		}
	case reflect.Map:
		if a.Len() != b.Len() {
			return differs()
		}
		for _, k := range a.MapKeys() {
			other := b.MapIndex(k)
			if !other.IsValid() {
				return differs()
			}
			if d := diff(a.MapIndex(k), other, at+"."+k.String()); d != "" {
				return d
			}
		}
	default:
		if !a.Equal(b) {
			return differs()
		}
	}
	return ""
}

// generator writes random configurations, most of them with something that readers
// may understand differently.
type generator struct {
	*rand.Rand
	out bytes.Buffer
	// odd is the number of oddities still to be put in.
	odd int
}

func pickOne[T any](g *generator, list ...T) T { return list[g.IntN(len(list))] }

// strange reports whether an oddity goes in here, one time in n as long as there
// are some left.
func (g *generator) strange(n int) bool {
	if g.odd == 0 || g.IntN(n) != 0 {
		return false
	}
	g.odd--
	return true
}

func (g *generator) document() []byte {
	g.out.Reset()
	g.odd = pickOne(g, 0, 0, 1, 1, 1, 2, 4)
	if g.strange(40) {
		g.out.WriteString("\ufeff")
	}
	g.spec()
	if g.strange(15) {
		g.out.WriteString(pickOne(g, " {}", "\n{\"process\":{\"noNewPrivileges\":false}}", "x", "\x00", "\x00{", " /* */", "]", ","))
	}
	out := bytes.Clone(g.out.Bytes())
	if g.strange(30) {
		out = out[:g.IntN(len(out))]
	}
	if g.strange(30) {
		out[g.IntN(len(out))] = byte(g.IntN(256))
	}
	return out
}

func (g *generator) blank() {
	if g.IntN(8) == 0 {
		g.out.WriteString(pickOne(g, " ", "\n", "\t", "\r\n"))
	}
	if g.strange(400) {
		g.out.WriteString(pickOne(g, "/* c */", "// c\n", "\v", "\u00a0", "\x00", ","))
	}
}

type member struct {
	name  string
	value func()
}

// required are members without which crun refuses their object.
var required = map[string]bool{
	"ociVersion": true, "cwd": true, "uid": true, "gid": true, "path": true, "destination": true, "type": true, "hard": true, "soft": true,
	"containerID": true, "hostID": true, "size": true, "defaultAction": true, "names": true, "action": true, "index": true, "value": true,
	"op": true, "allow": true, "limit": true, "args": true,
}

// object writes members, in another order at times, and odd ones among them.
func (g *generator) object(members ...member) {
	var list []member
	for _, m := range members {
		if g.IntN(3) > 0 || required[m.name] {
			list = append(list, m)
		}
	}
	if g.IntN(2) == 0 {
		g.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	}
	if len(list) > 0 && g.strange(4) {
		// Another one of the same or nearly the same name.
		m := pickOne(g, list...)
		m.name = g.alias(m.name)
		at := g.IntN(len(list) + 1)
		list = append(list[:at], append([]member{m}, list[at:]...)...)
	}
	if g.strange(10) {
		list = append(list, member{pickOne(g, "novel", "x-y", "", "args", "process", "annotations"), func() { g.value(2) }})
	}
	g.out.WriteByte('{')
	for i, m := range list {
		if i > 0 {
			g.out.WriteByte(',')
		}
		g.blank()
		if g.strange(12) {
			m.name = g.alias(m.name)
		}
		g.name(m.name)
		g.blank()
		g.out.WriteByte(':')
		g.blank()
		if g.strange(12) {
			g.value(2)
		} else {
			m.value()
		}
		g.blank()
	}
	if g.strange(100) {
		g.out.WriteByte(',')
	}
	g.out.WriteByte('}')
}

// alias is a name that some readers take for another.
func (g *generator) alias(name string) string {
	if name == "" {
		return name
	}
	switch g.IntN(7) {
	case 0:
		return strings.ToUpper(name)
	case 1:
		return strings.ToUpper(name[:1]) + name[1:]
	case 2:
		return strings.Replace(name, "s", "\u017f", 1)
	case 3:
		return strings.Replace(name, "k", "\u212a", 1)
	case 4:
		return name + "\x00" + name
	case 5:
		return strings.ToLower(name)
	}
	return name
}

func (g *generator) name(s string) { g.quoted(s) }

// quoted writes a string, some of its letters as escapes.
func (g *generator) quoted(s string) {
	g.out.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			fmt.Fprintf(&g.out, "\\%c", r)
		case r < 0x20 || g.IntN(60) == 0 && r < 0x10000:
			fmt.Fprintf(&g.out, pickOne(g, "\\u%04x", "\\u%04X"), r)
		default:
			g.out.WriteRune(r)
		}
	}
	if g.strange(60) {
		g.out.WriteString(pickOne(g, "\\u0000", "\\ud800", "\\udc00x", "\\ud83d\\ude00", "\xff", "\xc0\x80", "\xed\xa0\x80", "\x01", "\n", "\\x41", "\\u00zz", "\\/", "\u2028", "\\u0000\\ud800"))
	}
	g.out.WriteByte('"')
}

func (g *generator) text(list ...string) func() {
	return func() {
		if g.strange(30) {
			g.out.WriteString(pickOne(g, "null", "0", "true", "[]", "{}", "12e3"))
			return
		}
		g.quoted(pickOne(g, list...))
	}
}

func (g *generator) boolean() {
	g.out.WriteString(pickOne(g, "true", "false"))
	if g.strange(20) {
		g.out.WriteString(pickOne(g, "x", "0"))
	}
}

func (g *generator) number(list ...string) func() {
	return func() {
		if g.strange(6) {
			g.out.WriteString(pickOne(g, "1e3", "1.0", "1.5", "-0", "-1", "01", "0x10", "+1", "1E+2", "0.5e1", "4294967295", "4294967296", "9007199254740993", "9223372036854775807",
				"9223372036854775808", "18446744073709551615", "18446744073709551616", "-9223372036854775808", "-9223372036854775809", "1e400", `"1"`, "null", "true", "-", "99999999999999999999999"))
			return
		}
		g.out.WriteString(pickOne(g, list...))
	}
}

func (g *generator) array(n int, elem func()) func() {
	return func() {
		g.out.WriteByte('[')
		for i := range g.IntN(n + 1) {
			if i > 0 {
				g.out.WriteByte(',')
			}
			g.blank()
			if g.strange(40) {
				g.value(1)
			} else {
				elem()
			}
		}
		if g.strange(100) {
			g.out.WriteByte(',')
		}
		g.out.WriteByte(']')
	}
}

func (g *generator) texts(list ...string) func() { return g.array(3, g.text(list...)) }

// value writes anything.
func (g *generator) value(depth int) {
	switch n := g.IntN(9); {
	case n < 2:
		g.out.WriteString(pickOne(g, "null", "true", "false", "null"))
	case n < 4:
		g.number("0", "1", "7")()
	case n < 6 || depth == 0:
		g.quoted(pickOne(g, "", "true", "1", "x", "SCMP_ACT_ALLOW"))
	case n < 7:
		g.array(2, func() { g.value(depth - 1) })()
	case n < 8:
		g.object(member{"a", func() { g.value(depth - 1) }}, member{"b", func() { g.value(depth - 1) }})
	default:
		g.out.WriteString(strings.Repeat("[", 70) + strings.Repeat("]", 70))
	}
}

func (g *generator) mapping(names []string, values ...string) func() {
	return func() {
		var list []member
		for _, n := range names {
			list = append(list, member{n, g.text(values...)})
		}
		g.object(list...)
	}
}

func (g *generator) idMaps() func() {
	return g.array(2, func() {
		g.object(member{"containerID", g.number("0", "1")}, member{"hostID", g.number("1000", "100000")}, member{"size", g.number("1", "65536")})
	})
}

func (g *generator) hooks() func() {
	return g.array(2, func() {
		g.object(member{"path", g.text("/usr/bin/true", "/bin/h")}, member{"args", g.texts("h", "x")}, member{"env", g.texts("A=b", "LD_PRELOAD=/x")}, member{"timeout", g.number("5", "1")})
	})
}

// spec writes a configuration of the members that runc 1.1.5 and crun 1.8.1 know.
func (g *generator) spec() {
	capabilities := g.texts("CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_KILL")
	g.object(
		member{"ociVersion", g.text("1.0.0", "1.0.2-dev")},
		member{"hostname", g.text("h", "ünïcode")},
		member{"process", func() {
			g.object(
				member{"terminal", g.boolean},
				member{"args", g.texts("sh", "-c", "true \"x\" \\", "kskſ", "日本")},
				member{"cwd", g.text("/", "/proc/self/fd/7")},
				member{"env", g.texts("PATH=/bin", "A=", "K=\t\n")},
				member{"noNewPrivileges", g.boolean},
				member{"selinuxLabel", g.text("", "u:r:t:s0:c1,c2")},
				member{"apparmorProfile", g.text("", "unconfined", "docker-default")},
				member{"oomScoreAdj", g.number("-998", "0", "1000")},
				member{"user", func() {
					g.object(member{"uid", g.number("0", "1000")}, member{"gid", g.number("0", "5")}, member{"umask", g.number("18", "63")}, member{"additionalGids", g.array(3, g.number("1", "2"))})
				}},
				member{"capabilities", func() {
					g.object(member{"bounding", capabilities}, member{"effective", capabilities}, member{"permitted", capabilities}, member{"inheritable", capabilities}, member{"ambient", capabilities})
				}},
				member{"rlimits", g.array(2, func() {
					g.object(member{"type", g.text("RLIMIT_NOFILE", "RLIMIT_CORE")}, member{"soft", g.number("1024", "18446744073709551615")}, member{"hard", g.number("1024", "4096")})
				})},
			)
		}},
		member{"root", func() { g.object(member{"path", g.text("rootfs", "/r")}, member{"readonly", g.boolean}) }},
		member{"mounts", g.array(3, func() {
			g.object(member{"destination", g.text("/proc", "/x", "/proc/1/fd")}, member{"type", g.text("proc", "bind", "tmpfs")}, member{"source", g.text("proc", "/src", "rel")},
				member{"options", g.texts("rbind", "ro", "rw", "nosuid")}, member{"uidMappings", g.idMaps()})
		})},
		member{"hooks", func() {
			g.object(member{"prestart", g.hooks()}, member{"createRuntime", g.hooks()}, member{"createContainer", g.hooks()}, member{"startContainer", g.hooks()}, member{"poststart", g.hooks()}, member{"poststop", g.hooks()})
		}},
		member{"annotations", g.mapping([]string{"a", "A", "run.oci.seccomp_bpf_data", "io.github.palisade-sec.selinux", "k"}, "", "x", "level:s0:c1,c2")},
		member{"linux", func() {
			g.object(
				member{"maskedPaths", g.texts("/proc/kcore", "/proc/keys")},
				member{"readonlyPaths", g.texts("/proc/sys", "/proc/bus")},
				member{"mountLabel", g.text("", "u:r:f:s0:c1,c2")},
				member{"cgroupsPath", g.text("/a/b", "x.slice:p:n")},
				member{"rootfsPropagation", g.text("private", "slave")},
				member{"sysctl", g.mapping([]string{"net.a", "kernel.B"}, "0", "1")},
				member{"uidMappings", g.idMaps()},
				member{"gidMappings", g.idMaps()},
				member{"namespaces", g.array(4, func() {
					g.object(member{"type", g.text("pid", "mount", "network", "user")}, member{"path", g.text("/proc/1/ns/net", "ns")})
				})},
				member{"devices", g.array(2, func() {
					g.object(member{"path", g.text("/dev/x", "/dev/kvm")}, member{"type", g.text("c", "b", "p")}, member{"major", g.number("10", "1")}, member{"minor", g.number("232", "3")},
						member{"fileMode", g.number("438", "511")}, member{"uid", g.number("0", "5")}, member{"gid", g.number("0", "5")})
				})},
				member{"resources", func() {
					g.object(
						member{"devices", g.array(3, func() {
							g.object(member{"allow", g.boolean}, member{"type", g.text("a", "c")}, member{"major", g.number("1", "-1")}, member{"minor", g.number("3")}, member{"access", g.text("rwm", "r")})
						})},
						member{"pids", func() { g.object(member{"limit", g.number("100", "-1", "0")}) }},
						member{"memory", func() {
							g.object(member{"limit", g.number("1048576", "-1", "9007199254740993")}, member{"swap", g.number("-1", "0")}, member{"swappiness", g.number("60")}, member{"disableOOMKiller", g.boolean})
						}},
						member{"cpu", func() {
							g.object(member{"shares", g.number("1024")}, member{"quota", g.number("-1", "1000")}, member{"period", g.number("100000")}, member{"cpus", g.text("0-1")})
						}},
					)
				}},
				member{"seccomp", func() {
					g.object(
						member{"defaultAction", g.text("SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", "SCMP_ACT_NOTIFY")},
						member{"defaultErrnoRet", g.number("1", "38")},
						member{"architectures", g.texts("SCMP_ARCH_X86_64", "SCMP_ARCH_X86")},
						member{"flags", g.texts("SECCOMP_FILTER_FLAG_LOG")},
						member{"listenerPath", g.text("/run/agent.sock", "")},
						member{"syscalls", g.array(3, func() {
							g.object(member{"names", g.texts("read", "write", "ptrace")}, member{"action", g.text("SCMP_ACT_ALLOW", "SCMP_ACT_KILL")}, member{"errnoRet", g.number("1", "38")},
								member{"args", g.array(2, func() {
									g.object(member{"index", g.number("0", "1")}, member{"value", g.number("2114060288", "18446744073709551615", "9007199254740993")}, member{"valueTwo", g.number("0", "1")}, member{"op", g.text("SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ")})
								})})
						})},
					)
				}},
			)
		}},
	)
}

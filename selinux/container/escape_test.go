// SPDX-License-Identifier: Apache-2.0

//go:build linux

package container

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// probed is one probe's answer, of "palisade probe --json".
type probed struct {
	Name, Group, Outcome, Errno, Layer, Note string
}

// allCaps are all capabilities that an engine knows: Docker 20.10 ends with
// CAP_AUDIT_READ.
var allCaps = regexp.MustCompile(`CapEff: 0+(3f|ff|1ff)f{8}`)

// mustHold are probes that the domain alone has to block.
var mustHold = strings.Fields(`mount umount pivot_root open_by_handle_at init_module bpf-program kcore core_pattern modprobe-path open-disk
	open-mem selinux-load selinux-permissive selinux-retype swapon reboot set-clock sysrq-trigger`)

// escapes runs the probes as root with all capabilities in a container of Docker
// that has nothing but its label: no filter, no masked path, no AppArmor, no
// Landlock, and the host's network.
func (s *shell) escapes() {
	if err := os.MkdirAll("/srv/probe", 0o755); err != nil {
		s.errorf("%v", err)
	}
	s.must("cp", "/usr/local/bin/palisade", "/srv/probe/palisade")
	s.must("palisade", "relabel", "/srv/probe", "--context", "system_u:object_r:container_ro_file_t:s0")
	s.must("docker", "run", "-d", "--name", "escape", "--network", "host", "--uts", "host", "--cgroupns", "host", "--cap-add", "ALL",
		"--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined", "-v", "/srv/probe:/probe:ro", "box", "/bin/sleep", "600")
	status := s.must("docker", "exec", "escape", "/bin/sh", "-c", "cat /proc/self/attr/current; echo; while read k v; do case $k in Cap*|Seccomp:|NoNewPrivs:) echo $k $v;; esac; done < /proc/self/status")
	fmt.Fprintf(os.Stderr, "escapes: %s\n", strings.Join(strings.FieldsFunc(status, func(r rune) bool { return r == '\n' || r == 0 }), ", "))
	if !strings.Contains(status, ":container_t:s0:c") || !strings.Contains(status, "Seccomp: 0") || !allCaps.MatchString(status) {
		s.errorf("escapes: not root with all capabilities and no filter under a label: %s", status)
	}
	out, _ := s.run("docker", "exec", "escape", "/probe/palisade", "probe", "--json") // exit code 1 is an answer
	var results []probed
	if err := json.Unmarshal([]byte(out), &results); err != nil {
		s.errorf("escapes: %v: %.600s", err, out)
		return
	}
	count := map[string]int{}
	var open []string
	for _, r := range results {
		what := r.Outcome
		if r.Outcome == "blocked" {
			what = "blocked: " + orUnknown(r.Layer)
		}
		count[what]++
		if r.Outcome == "open" {
			open = append(open, r.Name)
			if slices.Contains(mustHold, r.Name) {
				s.errorf("escapes: %s is open: %+v", r.Name, r)
			}
		}
		fmt.Fprintf(os.Stderr, "| %s | %s | %s | %s |\n", r.Name, what, r.Errno, r.Note)
	}
	fmt.Fprintf(os.Stderr, "escapes: %v; open: %s\n", count, strings.Join(open, " "))
	if len(results) < 100 || count["blocked: selinux"] < 40 {
		s.errorf("escapes: of %d probes SELinux blocked %d", len(results), count["blocked: selinux"])
	}
	s.must("docker", "rm", "-f", "escape")
}

func orUnknown(layer string) string {
	if layer == "" {
		return "not shown by what"
	}
	return layer
}

// failOpen asks every engine for a label and for an AppArmor profile, on this
// host that has SELinux and no AppArmor, and wants the one in force and the other
// refused.
func (s *shell) failOpen() {
	asked := 900 // a level rests for a minute after it was used
	label := func(engine string, enforced bool, name string, run func(opt string) []string) {
		asked += 2
		level := fmt.Sprintf("s0:c%d,c%d", asked, asked+1)
		want := "system_u:system_r:container_t:" + level
		out, err := s.run(name, run("level:"+level)...)
		got := strings.Trim(out, "\x00\n ")
		fmt.Fprintf(os.Stderr, "fail-open: %-40s label    %s\n", engine, got)
		if enforced && (err != nil || got != want) {
			s.errorf("%s: asked for level %s, got %q: %v", engine, level, out, err)
		}
	}
	profile := func(engine string, refused bool, name string, args ...string) {
		out, err := s.run(name, args...)
		answer := "silently ignored"
		if err != nil {
			answer = "refused"
		}
		fmt.Fprintf(os.Stderr, "fail-open: %-40s AppArmor %s\n", engine, answer)
		if refused && (err == nil || !strings.Contains(strings.ToLower(out), "apparmor")) {
			s.errorf("%s: a profile on a host without AppArmor: %v: %s", engine, err, out)
		}
	}
	show := []string{"/bin/cat", "/proc/self/attr/current"}
	docker := func(client []string, engine, rt string, enforced, refused bool) {
		run := func(opt string) []string {
			return join(client[1:], []string{"run", "--rm", "--network", "none", "--runtime", rt, "--security-opt", opt, "box"}, show)
		}
		label(engine, enforced, client[0], func(l string) []string { return run("label=" + l) })
		profile(engine, refused, client[0], run("apparmor=mine")...)
	}
	docker([]string{"docker"}, "docker", "runc", true, false)
	docker([]string{"docker"}, "docker by palisade-oci", "palisade", true, true)
	// A daemon that was not told to use SELinux.
	second := []string{"docker", "-H", "unix:///run/docker2.sock"}
	// Its folder is none that the module knows: layers there want the types all the
	// same, since the kernel looks at them behind the overlay.
	s.must("mkdir", "-p", "/var/lib/docker2")
	s.must("chcon", "system_u:object_r:container_var_lib_t:s0", "/var/lib/docker2")
	d := s.background("/run/dockerd2.log", "dockerd", "--data-root", "/var/lib/docker2", "--exec-root", "/run/docker2", "--pidfile", "/run/docker2.pid", "-H", "unix:///run/docker2.sock",
		"--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=overlay2", "--containerd", "/run/containerd/containerd.sock",
		"--containerd-namespace", "moby2", "--add-runtime", "palisade="+wrapper)
	s.wait(second[0], join(second[1:], []string{"version"})...)
	s.must(second[0], join(second[1:], []string{"import", "/srv/box.tar", "box:latest"})...)
	docker(second, "docker without --selinux-enabled", "runc", false, false)
	docker(second, "the same by palisade-oci", "palisade", true, true)
	if d != nil {
		_ = d.Process.Kill()
	}
	for engine, rt := range map[string]string{"podman": "crun", "podman by palisade-oci": wrapper} {
		p := podman(rt)
		run := func(opt string) []string {
			return join(p[1:], []string{"run", "--rm", "--network", "none", "--security-opt", opt, "box"}, show)
		}
		label(engine, true, p[0], func(l string) []string { return run("label=" + l) })
		profile(engine, true, p[0], run("apparmor=mine")...)
	}
	for engine, rt := range map[string]string{"ctr": "/usr/sbin/runc", "ctr by palisade-oci": wrapper} {
		run := func(opts ...string) []string {
			return join([]string{"run", "--rm", "--runc-binary", rt}, opts, []string{"docker.io/library/box:latest", fmt.Sprint("fo", time.Now().UnixNano())}, show)
		}
		label(engine, rt == wrapper, "ctr", func(l string) []string { return run("--annotation", "io.github.palisade-sec.selinux="+l) })
		profile(engine, rt == wrapper, "ctr", run("--apparmor-profile", "mine")...)
	}
	// libvirt's label is in the matrix. Its AppArmor driver is not there.
	xml := "<domain type='lxc'><name>fo</name><memory unit='MiB'>64</memory><os><type>exe</type><init>/bin/true</init></os>" +
		"<devices><filesystem type='mount'><source dir='/srv/box'/><target dir='/'/></filesystem><console type='pty'/></devices><seclabel type='static' model='apparmor'><label>mine</label></seclabel></domain>"
	file := filepath.Join("/etc", "fo.xml")
	if err := os.WriteFile(file, []byte(xml), 0o644); err != nil {
		s.errorf("%v", err)
	}
	profile("libvirt", true, "virsh", "-q", "-c", "lxc:///system", "create", file)
}

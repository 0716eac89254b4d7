// SPDX-License-Identifier: Apache-2.0

//go:build linux

package observe

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/opencontainers/selinux/go-selinux"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/svirt"
)

func TestHost(t *testing.T) {
	const process, file = "system_u:system_r:container_t:", "system_u:object_r:container_file_t:"
	files := map[string]string{
		"proc/1/attr/current":  "system_u:system_r:init_t:s0",
		"proc/42/attr/current": process + "s0:c1,c2\x00",
		"proc/43/attr/current": process + "s0-s0:c0.c1023\n",
		"proc/44/attr/current": "docker-default (enforce)\n",
		"proc/45/status":       "",
		"proc/self/x":          "",

		"var/lib/docker/containers/d1/config.v2.json": `{"ID":"d1","ProcessLabel":"` + process + `s0:c3,c4","MountLabel":"` + file + `s0:c3,c4"}`,
		"var/lib/docker/containers/d2/config.v2.json": `{"ID":"d2","ProcessLabel":"","MountLabel":"` + file + `s0:c5,c6"}`,
		"var/lib/docker/containers/d3/config.v2.json": `{"ID":"d3","ProcessLabel":"","MountLabel":""}`,
		"var/lib/docker/containers/d4/config.v2.json": `{"ID":`,

		"var/lib/containers/storage/overlay-containers/containers.json": `[{"id":"p1","flags":{"ProcessLabel":"` + process + `s0:c8,c7","MountLabel":"x"}},{"id":"p2"}]`,

		"run/containerd/io.containerd.runtime.v2.task/k8s.io/k1/config.json": `{"process":{"selinuxLabel":"` + process + `s0:c9,c10"},"linux":{"mountLabel":"` + file + `s0:c9,c10"}}`,
		"run/containers/storage/overlay-containers/c1/userdata/config.json":  `{"process":{"selinuxLabel":"` + process + `s0:c11,c12"}}`,

		"run/libvirt/lxc/v1.xml": `<domstatus><domain type='lxc'><name>v1</name><seclabel type='dynamic' model='selinux'><label>system_u:system_r:svirt_t:s0:c13,c14</label></seclabel><seclabel type='dynamic' model='dac'><label>+0:+0</label></seclabel></domain></domstatus>`,
		// As libvirt 9.0 writes them: a running machine, defined domains with a label of
		// their own, with one that is drawn at each start, and with none.
		"run/libvirt/qemu/v2.xml":           `<domstatus state='running' reason='booted' pid='7'><monitor path='/m' type='unix'/><vcpus/><domain type='kvm' id='1'><name>v1</name><seclabel type='static' model='selinux' relabel='yes'><label>system_u:system_r:svirt_t:s0:c15,c16</label><imagelabel>system_u:object_r:svirt_image_t:s0:c15,c16</imagelabel></seclabel></domain></domstatus>`,
		"etc/libvirt/lxc/v3.xml":            "<!--\nWARNING: THIS IS AN AUTO-GENERATED FILE.\n-->\n<domain type='lxc'><name>v 3</name><uuid>deabfeaf-9faa-4ce1-bb2f-da68e03ab12b</uuid><seclabel type='static' model='selinux' relabel='no'><label>system_u:system_r:container_t:s0:c18,c17</label></seclabel></domain>",
		"etc/libvirt/qemu/v4.xml":           `<domain type='qemu'><name>v4</name><seclabel type='static' model='selinux'><label>system_u:system_r:svirt_tcg_t:s0:c19,c20</label></seclabel></domain>`,
		"etc/libvirt/qemu/v5.xml":           `<domain type='qemu'><name>v5</name><seclabel type='dynamic' model='selinux' relabel='yes'><baselabel>system_u:system_r:svirt_t:s0</baselabel></seclabel></domain>`,
		"etc/libvirt/lxc/v6.xml":            `<domain type='lxc'><name>v6</name><seclabel type='none' model='none'/></domain>`,
		"etc/libvirt/qemu/networks/net.xml": `<network><name>default</name></network>`,
	}
	fsys := fstest.MapFS{}
	for name, text := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	got, err := host(fsys)
	if err == nil || !strings.Contains(err.Error(), "d4/config.v2.json") {
		t.Errorf("the broken file is not reported: %v", err)
	}
	want := []svirt.Observation{
		{Source: "process", ID: "42", Level: "s0:c1,c2"},
		{Source: "process", ID: "43", Level: "s0-s0:c0.c1023"},
		{Source: "docker", ID: "d1", Level: "s0:c3,c4"},
		{Source: "docker", ID: "d2", Level: "s0:c5,c6"},
		{Source: "podman", ID: "p1", Level: "s0:c7,c8"},
		{Source: "containerd", ID: "k1", Level: "s0:c9,c10"},
		{Source: "crio", ID: "c1", Level: "s0:c11,c12"},
		{Source: "libvirt", ID: "lxc-v1", Level: "s0:c13,c14"},
		{Source: "libvirt", ID: "qemu-v1", Level: "s0:c15,c16"},
		{Source: "libvirt", ID: "lxc-deabfeaf-9faa-4ce1-bb2f-da68e03ab12b", Level: "s0:c17,c18"},
		{Source: "libvirt", ID: "qemu-v4", Level: "s0:c19,c20"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// TestVolumes finds the labels that the content of volumes carries, whichever
// engine's and whether its container runs or not; the registry then gives out none
// of them, and again once nothing carries it.
func TestVolumes(t *testing.T) {
	root := t.TempDir()
	labelled := func(name, level string) {
		t.Helper()
		p := filepath.Join(root, name)
		if err := os.MkdirAll(p, 0o755); err != nil {
			t.Fatal(err)
		}
		if level == "" {
			return
		}
		if err := unix.Setxattr(p, "security.selinux", []byte("system_u:object_r:container_file_t:"+level+"\x00"), 0); err != nil {
			t.Skipf("cannot set security labels in %s: %v (root on ext4, xfs or btrfs can)", root, err)
		}
	}
	file := func(name, text string) {
		t.Helper()
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	labelled("proc", "")
	file("etc/docker/daemon.json", `{"data-root":"/data/docker"}`)
	labelled("data/docker/volumes/web/_data", "s0:c1,c2")
	labelled("data/docker/volumes/web/_data/brought", "s0:c3,c4")
	labelled("data/docker/volumes/plain/_data", "s0")
	file("data/docker/containers/d1/config.v2.json", `{"ID":"d1","MountPoints":{"/x":{"Source":"/srv/x"},"/y":{"Source":"/proc/sys"},"/z":{"Source":"../../etc"}}}`)
	labelled("srv/x", "s0:c5,c6")
	labelled("var/lib/containers/storage/volumes/db/_data", "s0:c7,c8")
	file("var/lib/containers/storage/overlay-containers/p1/userdata/config.json", `{"mounts":[{"type":"bind","source":"/srv/podman"},{"type":"tmpfs","source":"tmpfs"}]}`)
	labelled("srv/podman", "s0:c9,c10")
	file("run/containerd/io.containerd.runtime.v2.task/k8s.io/k1/config.json", `{"mounts":[{"type":"bind","source":"/srv/kube"}]}`)
	labelled("srv/kube", "s0:c11,c12")
	labelled("srv/noted", "s0:c13,c14")
	noted := svirt.Record{ID: "noted", Level: "s0:c13,c14", Content: []string{filepath.Join(root, "srv/noted")}}
	seen, err := All(root, []svirt.Record{noted})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, o := range seen {
		if o.Source != "content" {
			t.Errorf("%+v", o)
		}
		got[strings.TrimPrefix(o.ID, root+"/")] = o.Level
	}
	want := map[string]string{
		"data/docker/volumes/web/_data": "s0:c1,c2", "data/docker/volumes/web/_data/brought": "s0:c3,c4", "srv/x": "s0:c5,c6",
		"var/lib/containers/storage/volumes/db/_data": "s0:c7,c8", "srv/podman": "s0:c9,c10", "srv/kube": "s0:c11,c12", "srv/noted": "s0:c13,c14",
	}
	if !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}

	r := &svirt.Registry{Store: &svirt.Memory{}, Quarantine: -1}
	if rep, err := r.Reconcile(seen); err != nil || len(rep.Adopted) != len(want) {
		t.Errorf("%+v, %v", rep, err)
	}
	for path, level := range want {
		if _, err := r.Reserve(svirt.Claim{ID: "x", Level: level}); !errors.Is(err, svirt.ErrInUse) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", level, err)
		}
	}
	if err := os.RemoveAll(filepath.Join(root, "srv/podman")); err != nil {
		t.Fatal(err)
	}
	if seen, err = All(root, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Reconcile(seen); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Reserve(svirt.Claim{ID: "x", Level: "s0:c9,c10"}); err != nil {
		t.Errorf("a volume that is gone: %v", err)
	}
}

// TestConfirmThisHost observes this host: what go-selinux reads of the same processes,
// and a folder that was given a label.
func TestConfirmThisHost(t *testing.T) {
	const want = "s0:c1022,c1023"
	dir := t.TempDir()
	labelled := unix.Setxattr(dir, "security.selinux", []byte("system_u:object_r:container_file_t:s0:c1023,c1022\x00"), 0)
	if labelled != nil {
		t.Logf("no label can be set in %s: %v", dir, labelled)
	}
	// Processes come and go: those that are there before and after must be seen.
	before := processLevels(t)
	seen, err := All("/", []svirt.Record{{ID: "noted", Level: want, Content: []string{dir}}})
	if err != nil {
		t.Logf("not all could be read: %v", err)
	}
	after := processLevels(t)
	got := map[string]string{}
	var content []svirt.Observation
	for _, o := range seen {
		switch {
		case o.Source == "process":
			got[o.ID] = o.Level
		case o.Source == "content" && o.ID == dir:
			content = append(content, o)
		}
	}
	for id, l := range before {
		if _, is := after[id]; is && after[id] == l && got[id] != l {
			t.Errorf("process %s has %s, observed %q", id, l, got[id])
		}
	}
	for id, l := range got {
		_, was := before[id]
		_, is := after[id]
		if was && is && l != before[id] && l != after[id] {
			t.Errorf("process %s was observed with %s, and has %q", id, l, before[id])
		}
	}
	t.Logf("%d processes with a label of their own", len(got))
	if labelled == nil && !slices.Equal(content, []svirt.Observation{{Source: "content", ID: dir, Level: want}}) {
		t.Errorf("the folder: %v", content)
	}
	if labelled == nil && (!Labelled(dir, want) || !Labelled(dir, "s0:c1022.c1023") || Labelled(dir, "s0:c1022") || Labelled(dir, "x")) {
		t.Error("the folder's label is not compared by what it means")
	}
}

// processLevels are the ranges with categories of all processes, as another
// implementation reads their contexts; empty for a process without.
func processLevels(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/attr/current")
	if err != nil || len(files) == 0 {
		t.Fatalf("no processes: %v", err)
	}
	out := map[string]string{}
	for _, f := range files {
		pid := strings.Split(f, "/")[2]
		out[pid] = ""
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		c, err := selinux.NewContext(strings.TrimRight(string(b), "\x00\n"))
		if err != nil || !strings.Contains(c["level"], ":") || strings.HasSuffix(c["level"], ")") {
			continue
		}
		out[pid] = c["level"]
	}
	return out
}

// TestLevel reads contexts.
func TestLevel(t *testing.T) {
	for text, want := range map[string]string{
		"u:r:t:s0:c2,c1\x00": "s0:c1,c2", "u:r:t:s0:c1.c2\n": "s0:c1,c2", "u:r:t:s0-s0:c0.c1023": "s0-s0:c0.c1023", "u:r:t:s0:c1,c2-s0:c1,c2": "s0:c1,c2",
		"u:r:t:s0": "", "u:r:t": "", "": "", "unconfined": "", "docker-default (enforce)": "", ":ns:a:b:c (enforce)": "",
		"u:r:t:s0:c2,c1 ": "error", "u:r:t:s0:c1,": "error", "u:r:t:s0:c99999": "error", "u::t:s0:c1": "error", "u:r:t:x:c1": "error",
	} {
		got, err := level(text)
		if (err != nil) != (want == "error") || err == nil && got != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

// TestUnreadable reports a label that cannot be read, and goes on.
func TestUnreadable(t *testing.T) {
	fsys := fstest.MapFS{}
	for name, text := range map[string]string{
		"proc/1/attr/current": "u:r:t:s0:c1,", "proc/2/attr/current": "u:r:t:s0:c1,c2",
		"var/lib/docker/containers/d1/config.v2.json":                   `{"ID":"d1","ProcessLabel":"u:r:t:s0:c3,"}`,
		"var/lib/containers/storage/overlay-containers/containers.json": `[{"id":"p1","flags":{"ProcessLabel":"u:r:t:s0:c4,"}},{"id":"p2","flags":{"ProcessLabel":"u:r:t:s0:c5,c6"}}]`,
	} {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	got, err := host(fsys)
	want := []svirt.Observation{{Source: "process", ID: "2", Level: "s0:c1,c2"}, {Source: "podman", ID: "p2", Level: "s0:c5,c6"}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	for _, part := range []string{"process 1", "docker d1", "podman p1"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not name %s", err, part)
		}
	}
}

func FuzzState(f *testing.F) {
	f.Add([]byte(`{"ID":"d1","ProcessLabel":"a:b:c:s0:c1,c2"}`))
	f.Add([]byte(`[{"id":"p1","flags":{"ProcessLabel":1}}]`))
	f.Add([]byte(`<domain><name>x</name><seclabel model="selinux"><label>a:b:c:s0:c1,c2</label></seclabel></domain>`))
	f.Fuzz(func(t *testing.T, b []byte) {
		fsys := fstest.MapFS{}
		for _, name := range []string{"proc/1/attr/current", "var/lib/docker/containers/a/config.v2.json", "var/lib/containers/storage/overlay-containers/containers.json", "run/containerd/io.containerd.runtime.v2.task/a/b/config.json", "etc/docker/daemon.json", "run/libvirt/qemu/a.xml"} {
			fsys[name] = &fstest.MapFile{Data: b}
		}
		_, _ = volumeFolders(fsys)
		got, _ := host(fsys)
		for _, o := range got {
			if o.Level == "" || o.Source == "" {
				t.Fatalf("%+v", o)
			}
		}
	})
}

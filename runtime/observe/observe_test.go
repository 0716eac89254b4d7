// SPDX-License-Identifier: Apache-2.0

//go:build linux

package observe

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"

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
	}
	fsys := fstest.MapFS{}
	for name, text := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	got, err := Host(fsys)
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
		{Source: "libvirt", ID: "v1", Level: "s0:c13,c14"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestThisHost(t *testing.T) {
	if _, err := Host(Root()); err != nil {
		t.Logf("not all could be read: %v", err)
	}
}

func FuzzState(f *testing.F) {
	f.Add([]byte(`{"ID":"d1","ProcessLabel":"a:b:c:s0:c1,c2"}`))
	f.Add([]byte(`[{"id":"p1","flags":{"ProcessLabel":1}}]`))
	f.Add([]byte(`<domain><name>x</name><seclabel model="selinux"><label>a:b:c:s0:c1,c2</label></seclabel></domain>`))
	f.Fuzz(func(t *testing.T, b []byte) {
		fsys := fstest.MapFS{}
		for _, name := range []string{"proc/1/attr/current", "var/lib/docker/containers/a/config.v2.json", "var/lib/containers/storage/overlay-containers/containers.json", "run/containerd/io.containerd.runtime.v2.task/a/b/config.json", "run/libvirt/qemu/a.xml"} {
			fsys[name] = &fstest.MapFile{Data: b}
		}
		got, _ := Host(fsys)
		for _, o := range got {
			if o.Level == "" || o.Source == "" {
				t.Fatalf("%+v", o)
			}
		}
	})
}

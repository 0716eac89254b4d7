// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/internal/debian"
	"github.com/palisade-sec/palisade/selinux/ss"
)

func TestPreflight(t *testing.T) {
	_, with := defaultPolicy(t)
	without := load(t, debian.Policy(t, "default", nil).Policy)
	const (
		engine  = "system_u:system_r:initrc_t:s0"
		process = "system_u:system_r:container_t:s0:c1,c2"
		content = "system_u:object_r:container_file_t:s0:c1,c2"
	)
	for _, tt := range []struct {
		name   string
		server *ss.Server
		launch Launch
		want   []string // parts of the findings, in order
	}{
		{"Debian with the module", ss.New(with), Launch{engine, process, content}, nil},
		{"privileged", ss.New(with), Launch{engine, "system_u:system_r:spc_t:s0", "system_u:object_r:container_file_t:s0"}, nil},
		// This is what a stock Debian 12 answers Podman with: EINVAL.
		{"Debian as it is shipped", ss.New(without), Launch{engine, process, content}, []string{"no such process context", "no such content context"}},
		{"content of the host", ss.New(with), Launch{engine, process, "system_u:object_r:etc_t:s0"}, []string{"no entry point", "may not run its own files", "may not read its own folders"}},
		{"an engine that may not", ss.New(with), Launch{"system_u:system_r:syslogd_t:s0", process, content}, []string{"may not start processes", "no-new-privileges", "may not mount", "may not mount onto", "may not make or label"}},
		{"another container's content", ss.New(with), Launch{engine, process, "system_u:object_r:container_file_t:s0:c3,c4"}, []string{"no entry point", "may not run", "may not read"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := Preflight(tt.server, tt.launch)
			if len(got) != len(tt.want) {
				t.Fatalf("%d findings, want %d: %+v", len(got), len(tt.want), got)
			}
			for i, want := range tt.want {
				if !strings.Contains(got[i].Message, want) {
					t.Errorf("finding %d: %q, want %q", i, got[i].Message, want)
				}
			}
		})
	}
}

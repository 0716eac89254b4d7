// SPDX-License-Identifier: Apache-2.0

package tee

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-configfs-tsm/configfs/configfsi"
	"github.com/google/go-configfs-tsm/configfs/faketsm"
)

// TestEvidence runs against a model of the kernel's interface, whose answers are
// given the names of the kernel's drivers.
func TestEvidence(t *testing.T) {
	for _, tt := range []struct {
		provider string
		want     string // of the error
		aux      bool
	}{
		{"tdx_guest", "", false},
		{"sev_guest", "", true},
		{"arm_cca_guest", "unknown provider", false},
	} {
		sub := faketsm.ReportV7(0)
		read := sub.ReadAttr
		sub.ReadAttr = func(e *faketsm.ReportEntry, attr string) ([]byte, error) {
			switch attr {
			case "provider":
				return []byte(tt.provider + "\n"), nil
			case "auxblob":
				return []byte("certificates"), nil
			}
			return read(e, attr)
		}
		var rd [64]byte
		copy(rd[:], "report data")
		b, err := evidence(&faketsm.Client{Subsystems: map[string]configfsi.Client{"report": sub}}, rd)
		if tt.want != "" {
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %v", tt.provider, err)
			}
			continue
		}
		if err != nil || !bytes.Contains(b, []byte("7265706f72742064617461")) || bytes.HasSuffix(b, []byte("certificates")) != tt.aux {
			t.Errorf("%s: %q, %v", tt.provider, b, err)
		}
	}
}

func TestDetect(t *testing.T) {
	_, err := Detect()
	_, statErr := os.Stat("/sys/kernel/config/tsm/report")
	if statErr != nil && !errors.Is(err, ErrNone) {
		t.Errorf("without configfs-tsm: %v", err)
	}
}

// SPDX-License-Identifier: Apache-2.0

package tee

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-configfs-tsm/configfs/configfsi"
	"github.com/google/go-configfs-tsm/configfs/faketsm"

	"github.com/palisade-sec/palisade/shield/attest"
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

// TestNone asks a machine without a trusted environment for evidence.
func TestNone(t *testing.T) {
	_, err := Evidence([64]byte{})
	_, statErr := os.Stat("/sys/kernel/config/tsm/report")
	if statErr != nil && !errors.Is(err, ErrNone) {
		t.Errorf("without configfs-tsm: %v", err)
	}
}

// model makes files below a directory.
func model(t *testing.T, files map[string]string) Machine {
	t.Helper()
	m := Machine{t.TempDir()}
	for name, body := range files {
		at := m.path(name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func TestStatus(t *testing.T) {
	const cpu = "processor\t: 0\nflags\t\t: fpu "
	for _, tt := range []struct {
		name    string
		files   map[string]string
		tee     attest.TEE
		missing string
		hint    string
	}{
		{"nothing", nil, "", "no interface of SEV-SNP, TDX or SGX", ""},
		{"TDX guest", map[string]string{"/dev/tdx_guest": "", configfsReport + "/x": ""}, attest.TDX, "", ""},
		{"SNP guest", map[string]string{"/dev/sev-guest": "", configfsReport + "/x": ""}, attest.SNP, "", ""},
		{"old kernel", map[string]string{"/dev/sev-guest": ""}, "", "/dev/sev-guest is there, but not /sys/kernel/config/tsm/report", "Linux 6.7"},
		{"no driver", map[string]string{configfsReport + "/x": ""}, "", "no driver gives reports", "modprobe"},
		{"TDX without its driver", map[string]string{"/proc/cpuinfo": cpu + "tdx_guest\n"}, "", "a TDX guest without /dev/tdx_guest", "modprobe tdx-guest"},
		{"SGX machine", map[string]string{"/dev/sgx_enclave": "", "/dev/sgx_provision": ""}, "", "does not run in an enclave, and only", "library OS"},
		{"SGX machine without provisioning", map[string]string{"/dev/sgx_enclave": ""}, "", "/dev/sgx_provision, which quoting needs, is not there either", "library OS"},
		{"SGX processor", map[string]string{"/proc/cpuinfo": cpu + "sgx sgx_lc\n"}, "", "the kernel offers no /dev/sgx_enclave", "CONFIG_X86_SGX"},
		{"enclave", map[string]string{"/dev/sgx_enclave": "", libOSDir + "/quote": "", libOSDir + "/user_report_data": "", libOSDir + "/attestation_type": "dcap\n"}, attest.SGX, "", ""},
		{"enclave without attestation", map[string]string{libOSDir + "/quote": "", libOSDir + "/user_report_data": "", libOSDir + "/attestation_type": "none"}, "", `attestation_type is "none"`, "remote_attestation"},
	} {
		s := model(t, tt.files).Status()
		if s.Evidence != tt.tee || !strings.Contains(s.Missing, tt.missing) || !strings.Contains(s.Hint, tt.hint) || (s.Missing == "") != (tt.tee != "") || (s.Source == "") != (tt.tee == "") {
			t.Errorf("%s: %+v", tt.name, s)
		}
	}
}

// TestLibOSEvidence runs against a model of a library OS's files.
func TestLibOSEvidence(t *testing.T) {
	var rd [64]byte
	copy(rd[:], "report data")
	quote := append(append(make([]byte, 48+320), rd[:]...), "signature"...)
	m := model(t, map[string]string{libOSDir + "/quote": string(quote), libOSDir + "/user_report_data": strings.Repeat("\x00", 64)})
	b, err := m.libOSEvidence(rd)
	if err != nil || !bytes.Equal(b, quote) {
		t.Errorf("%q, %v", b, err)
	}
	if got, err := os.ReadFile(m.path(libOSDir + "/user_report_data")); err != nil || !bytes.Equal(got, rd[:]) {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := m.libOSEvidence([64]byte{1}); err == nil || !strings.Contains(err.Error(), "not what was asked for") {
		t.Errorf("a quote for other report data: %v", err)
	}
	if err := os.WriteFile(m.path(libOSDir+"/quote"), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := m.libOSEvidence(rd); err == nil || !strings.Contains(err.Error(), "less than any quote") {
		t.Errorf("a short quote: %v", err)
	}
	if err := os.Remove(m.path(libOSDir + "/user_report_data")); err != nil {
		t.Fatal(err)
	}
	if _, err := m.libOSEvidence(rd); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// SPDX-License-Identifier: Apache-2.0

package tee

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/palisade-sec/palisade/shield/attest"
)

// Machine is a file system that the kernel's interfaces are looked for in: "/", or
// a model of it in tests.
type Machine struct{ Root string }

func (m Machine) path(name string) string { return filepath.Join(m.Root, name) }

func (m Machine) has(name string) bool {
	_, err := os.Stat(m.path(name))
	return err == nil
}

// Interfaces to trusted environments.
const (
	configfsReport = "/sys/kernel/config/tsm/report"
	libOSDir       = "/dev/attestation" // of a library OS in an SGX enclave, such as Gramine's
)

// Interface is one thing of a machine that has to do with trusted environments.
type Interface struct {
	Name  string `json:"name"`
	There bool   `json:"there"`
	What  string `json:"what"`
}

// Status says what a machine offers.
type Status struct {
	Evidence   attest.TEE  `json:"evidence"` // the kind that Evidence would give; empty: none
	Source     string      `json:"source,omitempty"`
	Missing    string      `json:"missing,omitempty"` // what stands between this machine and evidence
	Hint       string      `json:"hint,omitempty"`
	Interfaces []Interface `json:"interfaces"`
	CPUFlags   []string    `json:"cpu_flags,omitempty"` // those that have to do with it
}

// Status looks at what is there. It opens nothing that has an effect.
func (m Machine) Status() Status {
	var s Status
	for _, x := range []Interface{
		{Name: configfsReport, What: "reports of SEV-SNP and TDX guests (Linux 6.7)"},
		{Name: "/dev/sev-guest", What: "this is an SEV-SNP guest"},
		{Name: "/dev/tdx_guest", What: "this is a TDX guest"},
		{Name: libOSDir + "/quote", What: "this process runs in an SGX enclave, under a library OS"},
		{Name: "/dev/sgx_enclave", What: "this machine can run SGX enclaves"},
		{Name: "/dev/sgx_provision", What: "and enclaves that certify others"},
		{Name: "/dev/sgx_vepc", What: "and give guests SGX memory"},
		{Name: "/var/run/aesmd/aesm.socket", What: "Intel's quoting service is running"},
	} {
		x.There = m.has(x.Name)
		s.Interfaces = append(s.Interfaces, x)
	}
	there := func(name string) bool {
		return slices.ContainsFunc(s.Interfaces, func(x Interface) bool { return x.Name == name && x.There })
	}
	s.CPUFlags = m.flags("sgx", "sgx_lc", "sev_snp", "sev_es", "tdx_guest", "tdx_host_platform")
	guest := map[string]attest.TEE{"/dev/sev-guest": attest.SNP, "/dev/tdx_guest": attest.TDX}
	for _, dev := range []string{"/dev/sev-guest", "/dev/tdx_guest"} {
		switch {
		case !there(dev) || s.Evidence != "":
		case there(configfsReport):
			s.Evidence, s.Source = guest[dev], configfsReport
		default:
			s.Missing = fmt.Sprintf("%s is there, but not %s", dev, configfsReport)
			s.Hint = "mount -t configfs none /sys/kernel/config; it takes Linux 6.7 or later with CONFIG_TSM_REPORTS"
		}
	}
	if s.Evidence != "" || s.Missing != "" {
		return s
	}
	switch kind := m.libOSKind(); {
	case kind == "dcap":
		s.Evidence, s.Source = attest.SGX, libOSDir
	case kind != "":
		s.Missing = fmt.Sprintf("the library OS gives no DCAP quotes: %s/attestation_type is %q", libOSDir, kind)
		s.Hint = "Gramine: sgx.remote_attestation = \"dcap\" in the manifest"
	case there("/dev/sgx_enclave"):
		s.Missing = "this machine has SGX, but this process does not run in an enclave, and only an enclave can get evidence of itself"
		s.Hint = "run the program under a library OS that offers " + libOSDir
		if !there("/dev/sgx_provision") {
			s.Missing += "; /dev/sgx_provision, which quoting needs, is not there either"
		}
	case slices.Contains(s.CPUFlags, "sgx"):
		s.Missing = "the processor has SGX, but the kernel offers no /dev/sgx_enclave"
		s.Hint = "it takes a kernel with CONFIG_X86_SGX and launch control (cpu flag sgx_lc), and SGX turned on in the firmware"
	case slices.Contains(s.CPUFlags, "tdx_guest"):
		s.Missing = "this is a TDX guest without /dev/tdx_guest"
		s.Hint = "modprobe tdx-guest"
	case there(configfsReport):
		s.Missing = configfsReport + " is there, but no driver gives reports"
		s.Hint = "modprobe sev-guest, or modprobe tdx-guest"
	default:
		s.Missing = "no interface of SEV-SNP, TDX or SGX is there"
	}
	return s
}

// libOSKind is what a library OS says it attests with; of one that does not say, dcap.
func (m Machine) libOSKind() string {
	if !m.has(libOSDir+"/quote") || !m.has(libOSDir+"/user_report_data") {
		return ""
	}
	b, err := os.ReadFile(m.path(libOSDir + "/attestation_type"))
	if errors.Is(err, fs.ErrNotExist) {
		return "dcap"
	}
	return strings.TrimSpace(string(b))
}

func (m Machine) flags(known ...string) []string {
	b, err := os.ReadFile(m.path("/proc/cpuinfo"))
	if err != nil {
		return nil
	}
	var out []string
	for line := range bytes.Lines(b) {
		name, value, _ := strings.Cut(string(line), ":")
		if strings.TrimSpace(name) != "flags" {
			continue
		}
		for f := range strings.FieldsSeq(value) {
			if slices.Contains(known, f) {
				out = append(out, f)
			}
		}
		break // all processors have the same
	}
	return out
}

// libOSEvidence asks the library OS that this process runs under for a quote: the
// report data are written to one file, and the quote is read from another.
// Source: Gramine, "Attestation and Secret Provisioning", /dev/attestation.
func (m Machine) libOSEvidence(reportData [64]byte) ([]byte, error) {
	name := m.path(libOSDir + "/user_report_data")
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(reportData[:])
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, err
	}
	quote, err := os.ReadFile(m.path(libOSDir + "/quote"))
	if err != nil {
		return nil, err
	}
	// The report of an enclave, behind a header of 48 bytes, ends with the report data.
	const end = 48 + 384
	if len(quote) < end {
		return nil, fmt.Errorf("%s/quote: is %d bytes, less than any quote is", libOSDir, len(quote))
	}
	if !bytes.Equal(quote[end-64:end], reportData[:]) {
		return nil, fmt.Errorf("%s/quote: binds the report data %s, not what was asked for", libOSDir, hex.EncodeToString(quote[end-64:end]))
	}
	return quote, nil
}

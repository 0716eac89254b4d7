// SPDX-License-Identifier: Apache-2.0

// Package tee gets evidence from the trusted environment that this process runs
// in: through the kernel's configfs-tsm interface on SEV-SNP and TDX guests, and
// through the files of a library OS (/dev/attestation) in an SGX enclave. It was not run
// on such hardware; what it hands to these interfaces and takes from them is tested
// against models of them. Where there is none, it says what is there and what is missing.
package tee

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-configfs-tsm/configfs/configfsi"
	"github.com/google/go-configfs-tsm/configfs/linuxtsm"
	"github.com/google/go-configfs-tsm/report"
)

// ErrNone says that this machine offers no trusted environment.
var ErrNone = errors.New("no trusted environment here")

// Evidence gets evidence that binds the report data.
func Evidence(reportData [64]byte) ([]byte, error) {
	m := Machine{"/"}
	switch s := m.Status(); {
	case s.Evidence == "":
		return nil, fmt.Errorf("%w: %s", ErrNone, s.Missing)
	case s.Source == libOSDir:
		return m.libOSEvidence(reportData)
	}
	c, err := linuxtsm.MakeClient()
	if err != nil {
		return nil, fmt.Errorf("configfs-tsm: %w", err)
	}
	return evidence(c, reportData)
}

// evidence asks one configfs-tsm client. For SEV-SNP the certificates that the
// host passed on are appended, as an extended report has them.
func evidence(c configfsi.Client, reportData [64]byte) ([]byte, error) {
	r, err := report.Get(c, &report.Request{InBlob: reportData[:], GetAuxBlob: true})
	if err != nil {
		return nil, fmt.Errorf("configfs-tsm: %w", err)
	}
	switch strings.TrimSpace(r.Provider) { // the kernel ends the name with a newline
	case "sev_guest":
		return append(r.OutBlob, r.AuxBlob...), nil
	case "tdx_guest":
		return r.OutBlob, nil
	}
	return nil, fmt.Errorf("configfs-tsm: unknown provider %q", r.Provider)
}

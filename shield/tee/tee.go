// SPDX-License-Identifier: Apache-2.0

// Package tee gets evidence from the trusted environment that this process runs
// in: through the kernel's configfs-tsm interface on SEV-SNP and TDX guests. It
// was not run on such hardware; what it hands to the kernel and takes from it is
// tested against a model of the interface.
package tee

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/google/go-configfs-tsm/configfs/configfsi"
	"github.com/google/go-configfs-tsm/configfs/linuxtsm"
	"github.com/google/go-configfs-tsm/report"

	"github.com/palisade-sec/palisade/shield/attest"
)

// ErrNone says that this machine offers no trusted environment.
var ErrNone = errors.New("no trusted environment here: neither configfs-tsm (SEV-SNP, TDX) nor an SGX enclave")

// Detect says which interface evidence would come from: the kind of environment,
// or ErrNone. An SGX device alone is none: evidence comes from inside an enclave.
func Detect() (attest.TEE, error) {
	if _, err := os.Stat("/sys/kernel/config/tsm/report"); err != nil {
		return "", ErrNone
	}
	for _, d := range []struct {
		file string
		tee  attest.TEE
	}{{"/dev/sev-guest", attest.SNP}, {"/dev/tdx_guest", attest.TDX}} {
		if _, err := os.Stat(d.file); err == nil {
			return d.tee, nil
		}
	}
	return "", ErrNone
}

// Evidence gets evidence that binds the report data.
func Evidence(reportData [64]byte) ([]byte, error) {
	if _, err := Detect(); err != nil {
		return nil, err
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

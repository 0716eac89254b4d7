// SPDX-License-Identifier: Apache-2.0

package shield

import (
	"bufio"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/shield/attest"
)

func newAttestCommand(e *answer.Env) *cobra.Command {
	return answer.Group("attest", "verify evidence of trusted environments, and measure enclaves",
		newAttestVerifyCommand(e), newAttestStatusCommand(e), newAttestEvidenceCommand(e), newAttestMeasureCommand(e), newAttestMeasureSimCommand(e), newAttestSigstructCommand(e), newAttestSignCommand(e))
}

func newAttestVerifyCommand(e *answer.Env) *cobra.Command {
	var evidenceFile, collateralDir, reportData, eventLog string
	var at int64
	var p attest.Policy
	var requireCollateral, denyDebug bool
	cmd := &cobra.Command{
		Use:   "verify --evidence FILE --collateral DIR",
		Short: "Say whether evidence is authentic, and what it claims",
		Long: `Verifies an Intel SGX quote (version 3, 4, 5), an Intel TDX quote (4, 5) or an AMD SEV-SNP
report (2 to 5) up to the vendor's root, over every byte, and prints what it claims.

The collateral directory holds what the vendor publishes, in any of its forms: TCB info and
QE identity (JSON), certificates and revocation lists (PEM or DER), VCEK or VLEK. What is
there is enforced: its signature, its dates, its verdict. What is not there is listed in the
claims as missing, with a tcb_status of NotEvaluated; --require-collateral refuses that.
Debug mode is a claim; --deny-debug refuses it. A session service does both by default.

Exit code 0: authentic, and good enough; 1: not, with the failing field; 125: no answer.`,
		Example: "  palisade shield attest verify --evidence quote.bin --collateral pcs/ --at 1725263032 --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			evidence, err := os.ReadFile(evidenceFile)
			if err != nil {
				return err
			}
			if evidence, err = attest.Binary(evidence); err != nil {
				return refuseEvidence(e, evidenceFile, err)
			}
			if collateralDir != "" {
				if err := addCollateral(&p.Collateral, collateralDir); err != nil {
					return err
				}
			}
			now := time.Now()
			if cmd.Flags().Changed("at") {
				now = time.Unix(at, 0)
			}
			if cmd.Flags().Changed("report-data") {
				if p.ReportData, err = hex.DecodeString(reportData); err != nil {
					return fmt.Errorf("--report-data: %w", err)
				}
			}
			if eventLog != "" {
				if p.EventLog, err = os.ReadFile(eventLog); err != nil {
					return err
				}
			}
			p.AllowMissingCollateral, p.AllowDebug = !requireCollateral, !denyDebug
			p.AllowMigrate = true
			if len(p.AcceptTCB) == 0 {
				p.AcceptTCB = []string{attest.UpToDate, attest.SWHardeningNeeded, attest.ConfigurationNeeded, attest.ConfigurationAndSWNeeded}
			}
			c, err := attest.Verify(evidence, p, now)
			if err != nil {
				return refuseEvidence(e, evidenceFile, err)
			}
			return printClaims(e, c)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&evidenceFile, "evidence", "", "`FILE` with the quote or report, as it is, in hexadecimal or in base64 (required)")
	fl.StringVar(&collateralDir, "collateral", "", "`DIR` with what the vendor publishes about the platform")
	fl.Int64Var(&at, "at", 0, "verify as of this `UNIXTIME` (default: now)")
	fl.StringSliceVar(&p.Measurements, "measurement", nil, "accept only this MRENCLAVE, MRTD or MEASUREMENT (`HEX`; may be repeated)")
	fl.StringSliceVar(&p.Signers, "signer", nil, "accept only this MRSIGNER, MRSIGNERSEAM or ID_KEY_DIGEST (`HEX`; may be repeated)")
	fl.StringVar(&reportData, "report-data", "", "accept only this REPORTDATA (`HEX`, zeros behind it)")
	fl.StringVar(&eventLog, "event-log", "", "`FILE` with a trust domain's event log (CCEL), which must give the RTMRs")
	fl.StringSliceVar(&p.AcceptTCB, "accept-tcb", nil, "accept these `STATUS` values of Intel (default: all but those that ask for an update or a new start, and Revoked)")
	fl.Uint64Var(&p.MinSVN, "min-svn", 0, "accept only this security version `N` or higher")
	fl.Uint32Var(&p.MaxVMPL, "max-vmpl", 3, "accept SNP reports up to this VMPL `N`")
	fl.BoolVar(&requireCollateral, "require-collateral", false, "refuse when collateral is missing")
	fl.BoolVar(&denyDebug, "deny-debug", false, "refuse environments in debug mode")
	fl.BoolVar(&p.AllowTrailing, "allow-trailing", false, "ignore bytes behind the end of a quote (zeros are ignored anyway)")
	fl.BoolVar(&p.AllowEncryptedPPID, "allow-encrypted-ppid", false, "accept a quote with an encrypted PPID, whose bytes nothing vouches for, with the PCK certificate of the collateral")
	fl.BoolVar(&p.AllowSim, "allow-insecure-sim", false, "accept simulated evidence, which proves nothing")
	_ = cmd.MarkFlagRequired("evidence")
	return cmd
}

// addCollateral reads the files of a directory and those below it.
func addCollateral(c *attest.Collateral, dir string) error {
	const maxFile, maxFiles = 8 << 20, 10000
	files := 0
	return filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		fi, err := os.Stat(name)
		if err != nil || !fi.Mode().IsRegular() || fi.Size() > maxFile {
			return nil // not collateral
		}
		if files++; files > maxFiles {
			return fmt.Errorf("%s: more than %d files", dir, maxFiles)
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		c.Add(rel, b)
		return nil
	})
}

// refuseEvidence is the answer no, with the field in JSON too.
func refuseEvidence(e *answer.Env, name string, err error) error {
	fields := attest.Fields(err)
	if e.JSON && len(fields) > 0 {
		out := struct {
			OK     bool     `json:"ok"`
			Field  string   `json:"field"`
			Fields []string `json:"fields"`
			Error  string   `json:"error"`
		}{false, fields[0], fields, strings.ReplaceAll(err.Error(), "\n", "; ")}
		if err := e.PrintJSON(out); err != nil {
			return err
		}
	}
	return answer.No(fmt.Errorf("%s: %s", name, strings.ReplaceAll(err.Error(), "\n", "; ")))
}

func printClaims(e *answer.Env, c attest.Claims) error {
	if c.TEE == attest.Sim {
		e.Warnf("simulated evidence: confidentiality none, host isolation none")
	} else if c.Debug {
		e.Warnf("debug mode: the host can read the environment's memory")
	}
	if len(c.Missing) > 0 {
		e.Warnf("not evaluated, for want of collateral: %s", strings.Join(c.Missing, ", "))
	}
	if e.JSON {
		return e.PrintJSON(struct {
			OK bool `json:"ok"`
			attest.Claims
		}{true, c})
	}
	w := tabwriter.NewWriter(e.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "tee\t%s, %s\n", c.TEE, c.Evidence)
	fmt.Fprintf(w, "measurement\t%s\n", c.Measurement)
	fmt.Fprintf(w, "signer\t%s\n", c.Signer)
	fmt.Fprintf(w, "report data\t%s\n", c.ReportData)
	fmt.Fprintf(w, "svn\t%d\n", c.SVN)
	fmt.Fprintf(w, "debug\t%v\n", c.Debug)
	fmt.Fprintf(w, "confidentiality\t%s\n", c.Confidentiality)
	fmt.Fprintf(w, "tcb status\t%s %s\n", c.TCBStatus, c.TCBDate)
	if len(c.Advisories) > 0 {
		fmt.Fprintf(w, "advisories\t%s\n", strings.Join(c.Advisories, " "))
	}
	fmt.Fprintf(w, "platform\t%s %s\n", c.Platform, c.PlatformID)
	return w.Flush()
}

func newAttestMeasureCommand(e *answer.Env) *cobra.Command {
	return &cobra.Command{
		Use: "measure FILE.sgxs", Short: "Compute the MRENCLAVE of an SGX enclave", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			m, err := attest.MRENCLAVE(bufio.NewReaderSize(f, 1<<20))
			if err != nil {
				return refuseEvidence(e, args[0], err)
			}
			if e.JSON {
				return e.PrintJSON(map[string]string{"mr_enclave": hex.EncodeToString(m[:])})
			}
			_, err = fmt.Fprintf(e.Stdout, "%x\n", m)
			return err
		},
	}
}

func newAttestSigstructCommand(e *answer.Env) *cobra.Command {
	return &cobra.Command{
		Use: "sigstruct FILE", Short: "Verify a SIGSTRUCT and print the identity it gives", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			b, err := io.ReadAll(io.LimitReader(f, attest.SigstructSize+1))
			if err != nil {
				return err
			}
			s, err := attest.VerifySigstruct(b)
			if err != nil {
				return refuseEvidence(e, args[0], err)
			}
			if e.JSON {
				return e.PrintJSON(map[string]any{
					"ok": true, "mr_enclave": hex.EncodeToString(s.EnclaveHash[:]), "mr_signer": hex.EncodeToString(s.MRSIGNER[:]),
					"vendor": s.Vendor, "date": s.Date.Format("2006-01-02"), "sw_defined": s.SWDefined, "isv_prod_id": s.ISVProdID, "isv_svn": s.ISVSVN,
					"misc_select": s.MiscSelect, "misc_mask": s.MiscMask, "attributes": hex.EncodeToString(s.Attributes[:]), "attributes_mask": hex.EncodeToString(s.AttributesMask[:]),
					"isv_family_id": hex.EncodeToString(s.FamilyID[:]), "isv_ext_prod_id": hex.EncodeToString(s.ExtProdID[:]),
				})
			}
			_, err = fmt.Fprintf(e.Stdout, "mr_enclave   %x\nmr_signer    %x\ndate         %s\nisv_prod_id  %d\nisv_svn      %d\nattributes   %x\nmask         %x\n",
				s.EnclaveHash, s.MRSIGNER, s.Date.Format("2006-01-02"), s.ISVProdID, s.ISVSVN, s.Attributes, s.AttributesMask)
			return err
		},
	}
}

func newAttestSignCommand(e *answer.Env) *cobra.Command {
	var keyFile, output, date string
	var prodID, svn uint16
	var debug bool
	cmd := &cobra.Command{
		Use:   "sign FILE.sgxs --key FILE.pem -o FILE.sig",
		Short: "Sign an SGX enclave: make its SIGSTRUCT",
		Long: `Measures the enclave and signs its SIGSTRUCT with an RSA key of 3072 bits and exponent 3:
  openssl genrsa -3 3072 > enclave.pem`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			key, err := readRSA(keyFile)
			if err != nil {
				return err
			}
			day := time.Now().UTC()
			if date != "" {
				if day, err = time.Parse("2006-01-02", date); err != nil {
					return err
				}
			}
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			m, err := attest.MRENCLAVE(bufio.NewReaderSize(f, 1<<20))
			if err != nil {
				return refuseEvidence(e, args[0], err)
			}
			s := attest.Sigstruct{Date: day, EnclaveHash: m, ISVProdID: prodID, ISVSVN: svn, MiscMask: ^uint32(0)}
			// 64-bit code, x87 and SSE state; everything else is fixed by the mask but
			// the state components that the host may add.
			s.Attributes = [16]byte{4, 0, 0, 0, 0, 0, 0, 0, 3}
			s.AttributesMask = [16]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 3}
			if debug {
				s.Attributes[0] |= 2
			}
			b, err := s.Sign(key)
			if err != nil {
				return err
			}
			if err := answer.WriteFile(output, b); err != nil {
				return err
			}
			if e.JSON {
				signer, err := attest.MRSIGNER(&key.PublicKey)
				if err != nil {
					return err
				}
				return e.PrintJSON(map[string]string{"mr_enclave": hex.EncodeToString(m[:]), "mr_signer": hex.EncodeToString(signer[:]), "sigstruct": output})
			}
			_, err = fmt.Fprintf(e.Stdout, "mr_enclave  %x\n", m)
			return err
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&keyFile, "key", "", "`FILE` with the RSA key in PEM (required)")
	fl.StringVarP(&output, "output", "o", "", "`FILE` for the SIGSTRUCT (required)")
	fl.StringVar(&date, "date", "", "`DAY` of the build (default: today)")
	fl.Uint16Var(&prodID, "isv-prod-id", 0, "product `NUMBER`")
	fl.Uint16Var(&svn, "isv-svn", 0, "security version `NUMBER`")
	fl.BoolVar(&debug, "debug", false, "make a debug enclave, whose memory the host can read")
	_ = cmd.MarkFlagRequired("key")
	_ = cmd.MarkFlagRequired("output")
	return cmd
}

func readRSA(name string) (*rsa.PrivateKey, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("%s: no PEM", name)
	}
	if k, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return k, nil
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if k, ok := k.(*rsa.PrivateKey); ok {
		return k, nil
	}
	return nil, errors.New(name + ": no RSA key")
}

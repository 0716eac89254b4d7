// SPDX-License-Identifier: Apache-2.0

package shield

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/internal/cli/answer"
	"github.com/palisade-sec/palisade/shield/tee"
)

func newAttestStatusCommand(e *answer.Env) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Say what this machine has of trusted environments, and what is missing for evidence", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			s := tee.Machine{Root: "/"}.Status()
			if e.JSON {
				return e.PrintJSON(s)
			}
			w := tabwriter.NewWriter(e.Stdout, 0, 8, 2, ' ', 0)
			for _, x := range s.Interfaces {
				there := "-"
				if x.There {
					there = "yes"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\n", x.Name, there, x.What)
			}
			if len(s.CPUFlags) > 0 {
				fmt.Fprintf(w, "processor\tyes\t%s\n", strings.Join(s.CPUFlags, " "))
			}
			if err := w.Flush(); err != nil {
				return err
			}
			if s.Evidence == "" {
				fmt.Fprintf(e.Stdout, "evidence: none: %s\n", s.Missing)
				if s.Hint != "" {
					fmt.Fprintf(e.Stdout, "hint: %s\n", s.Hint)
				}
				return nil
			}
			_, err := fmt.Fprintf(e.Stdout, "evidence: %s, from %s\n", s.Evidence, s.Source)
			return err
		},
	}
}

func newAttestEvidenceCommand(e *answer.Env) *cobra.Command {
	var reportData, output string
	cmd := &cobra.Command{
		Use:   "evidence -o FILE",
		Short: "Get evidence of the trusted environment that this process runs in",
		Long: `Asks the kernel (configfs-tsm, on SEV-SNP and TDX guests) or the library OS that this process
runs under (/dev/attestation, in an SGX enclave) for a report or quote. 'attest status' says
what is there. It has not been run on such hardware.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			b, err := hex.DecodeString(reportData)
			if err != nil || len(b) > 64 {
				return fmt.Errorf("--report-data: want at most 64 bytes in hexadecimal")
			}
			var rd [64]byte
			copy(rd[:], b)
			ev, err := tee.Evidence(rd)
			if err != nil {
				if s := (tee.Machine{Root: "/"}).Status(); s.Evidence == "" && s.Hint != "" {
					return answer.Fail(err).Hint("%s", s.Hint)
				}
				return err
			}
			if err := os.WriteFile(output, ev, 0o644); err != nil {
				return err
			}
			if e.JSON {
				return e.PrintJSON(map[string]any{"evidence": output, "bytes": len(ev)})
			}
			_, err = fmt.Fprintf(e.Stdout, "evidence  %s, %d bytes\n", output, len(ev))
			return err
		},
	}
	cmd.Flags().StringVar(&reportData, "report-data", "", "bind this `HEX`, with zeros behind it to 64 bytes")
	cmd.Flags().StringVarP(&output, "output", "o", "", "`FILE` for the evidence (required)")
	_ = cmd.MarkFlagRequired("output")
	return cmd
}

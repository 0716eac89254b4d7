// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/palisade-sec/palisade/policy"
)

// ports are one list of endpoints.
type ports struct {
	// any is "*": endpoints of every protocol.
	any            bool
	anyTCP, anyUDP bool
	tcp, udp       []uint16
}

func (p ports) hasTCP() bool { return p.anyTCP || len(p.tcp) > 0 }
func (p ports) hasUDP() bool { return p.anyUDP || len(p.udp) > 0 }

// network are the endpoints of a policy.
type network struct{ listen, connect ports }

// free reports whether no endpoint is denied.
func (n network) free() bool { return n.listen.any && n.connect.any }

// tcp and udp report whether any endpoint of the protocol is allowed.
func (n network) tcp() bool { return n.listen.hasTCP() || n.connect.hasTCP() }
func (n network) udp() bool { return n.listen.hasUDP() || n.connect.hasUDP() }

// maxRange bounds how many ports a range has, since the kernel takes a rule for each.
const maxRange = 4096

// endpoints reads the endpoints of a policy. Without rules on the network all are allowed. What
// no layer can hold is an error that wraps [ErrMissing].
func endpoints(n *policy.Network) (out network, err error) {
	if n == nil {
		return network{ports{any: true, anyTCP: true, anyUDP: true}, ports{any: true, anyTCP: true, anyUDP: true}}, nil
	}
	if out.listen, err = readPorts("listen", n.Listen); err != nil {
		return network{}, err
	}
	if out.connect, err = readPorts("connect", n.Connect); err != nil {
		return network{}, err
	}
	if !out.free() && slices.Contains(n.Families, "smc") {
		return network{}, fmt.Errorf(`network: family "smc" has TCP's ports, and no layer holds them: %w`, ErrMissing)
	}
	return out, nil
}

func readPorts(what string, list []string) (out ports, err error) {
	for _, e := range list {
		if e == "*" {
			out.any, out.anyTCP, out.anyUDP = true, true, true
			continue
		}
		proto, port, ok := strings.Cut(e, "/")
		if !ok || proto != "tcp" && proto != "udp" {
			return ports{}, fmt.Errorf("network: %s %q: want tcp/PORT, udp/PORT or *: %w", what, e, ErrMissing)
		}
		anyPort, into := &out.anyTCP, &out.tcp
		if proto == "udp" {
			anyPort, into = &out.anyUDP, &out.udp
		}
		if port == "*" {
			*anyPort = true
			continue
		}
		low, high, isRange := strings.Cut(port, "-")
		if !isRange {
			high = low
		}
		first, err1 := strconv.ParseUint(low, 10, 16)
		last, err2 := strconv.ParseUint(high, 10, 16)
		if err1 != nil || err2 != nil || first > last || first == 0 || low[0] == '0' || high[0] == '0' {
			return ports{}, fmt.Errorf("network: %s %q: want a port from 1 to 65535, or a range: %w", what, e, ErrMissing)
		}
		if last-first >= maxRange {
			return ports{}, fmt.Errorf("network: %s %q: more than %d ports: %w", what, e, maxRange, ErrMissing)
		}
		for p := first; p <= last; p++ {
			*into = append(*into, uint16(p))
		}
	}
	return out, nil
}

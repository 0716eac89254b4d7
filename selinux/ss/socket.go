// SPDX-License-Identifier: Apache-2.0

package ss

// socketClasses are the kernel's socket classes: new sockets take role, type and
// range of the process, as new processes do. Classes of the same form that only
// a policy knows are not among them.
//
// Source: security/selinux/include/classmap.h.
var socketClasses = map[string]struct{}{
	"socket": {}, "tcp_socket": {}, "udp_socket": {}, "rawip_socket": {}, "netlink_socket": {},
	"packet_socket": {}, "key_socket": {}, "unix_stream_socket": {}, "unix_dgram_socket": {},
	"netlink_route_socket": {}, "netlink_firewall_socket": {}, "netlink_tcpdiag_socket": {}, "netlink_nflog_socket": {},
	"netlink_xfrm_socket": {}, "netlink_selinux_socket": {}, "netlink_iscsi_socket": {},
	"netlink_audit_socket": {}, "netlink_fib_lookup_socket": {}, "netlink_connector_socket": {},
	"netlink_netfilter_socket": {}, "netlink_dnrt_socket": {}, "netlink_kobject_uevent_socket": {},
	"netlink_generic_socket": {}, "netlink_scsitransport_socket": {}, "netlink_rdma_socket": {},
	"netlink_crypto_socket": {}, "netlink_ip6fw_socket": {}, "appletalk_socket": {}, "dccp_socket": {},
	"tun_socket": {}, "sctp_socket": {}, "icmp_socket": {}, "ax25_socket": {}, "ipx_socket": {},
	"netrom_socket": {}, "atmpvc_socket": {}, "x25_socket": {}, "rose_socket": {}, "decnet_socket": {},
	"atmsvc_socket": {}, "rds_socket": {}, "irda_socket": {}, "pppox_socket": {}, "llc_socket": {},
	"can_socket": {}, "tipc_socket": {}, "bluetooth_socket": {}, "iucv_socket": {}, "rxrpc_socket": {},
	"isdn_socket": {}, "phonet_socket": {}, "ieee802154_socket": {}, "caif_socket": {}, "alg_socket": {},
	"nfc_socket": {}, "vsock_socket": {}, "kcm_socket": {}, "qipcrtr_socket": {}, "smc_socket": {},
	"xdp_socket": {}, "mctp_socket": {},
}

# Configurations of OCI engines: random ones against what runc and crun read.

.PHONY: strictjson
strictjson: deps ## 100,000 random configurations against runc's and crun's reading, 300 of them run; nothing may be missing
	REQUIRE_ORACLES=1 PALISADE_STRICTJSON=100000 PALISADE_STRICTJSON_RUNS=300 $(GO) test -count=1 -v -timeout 30m -run 'TestConfirm(StrictJSON|StrictJSONEnforced|Edit|Destinations)$$' ./internal/engine/oci

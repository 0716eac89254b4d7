# All accept/reject tests of AppArmor's source tree: those that are written down and
# those that it generates (exec transitions, dbus rules, conditionals: 71,496), and the
# audit records of libapparmor's tests, and the pairs of equality.sh. APPARMOR_SOURCE names a tree that is there;
# without it the distribution's source package is fetched (needs deb-src).
.PHONY: apparmor-suites
APPARMOR_SOURCE ?=

apparmor-suites: ## accept/reject of all of upstream's AppArmor tests (APPARMOR_SOURCE=tree)
	@src="$(APPARMOR_SOURCE)"; \
	if [ -z "$$src" ]; then \
		dir=$${XDG_CACHE_HOME:-$$HOME/.cache}/palisade/apparmor-source; mkdir -p "$$dir/tree"; \
		(cd "$$dir" && apt-get source --download-only apparmor >/dev/null && \
			tar -xf apparmor_*.orig.tar.* --strip-components=1 -C tree) || \
			{ echo "the source package of apparmor cannot be fetched; set APPARMOR_SOURCE to a source tree" >&2; exit 1; }; \
		src=$$dir/tree; \
	fi; \
	APPARMOR_SOURCE="$$src" REQUIRE_ORACLES=1 $(GO) test -count=1 -run "TestConfirm(SimpleTests|Generated|Records|Suggestions)" -v ./apparmor ./audit && \
	APPARMOR_SOURCE="$$src" REQUIRE_ORACLES=1 $(GO) test -count=1 -timeout 60m -run TestConfirmAppArmorEquality -v ./internal/cli

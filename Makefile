# `make` alone explains every target.
.DEFAULT_GOAL := help
.PHONY: help run demo kafka conformance test check lint types taxonomy format replay backup restore rewrap rotate officer bench docs migrate lock clean
# Containers often forbid Python to keep what it has compiled: then every process compiles every library, and starts in
# three times the time.
unexport PYTHONDONTWRITEBYTECODE
PYTHON := .venv/bin/python
LOCK := .venv/bin/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-header --no-annotate

help: ## Show this list
	@echo "Vitrine: two commands are enough, 'make run' and 'make test'."
	@echo
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: installed ## Start the whole platform at http://127.0.0.1:8000 (BROKER=kafka for Apache Kafka; ARGS="--port 9000")
	@$(PYTHON) -m deploy.local.run $(ARGS)

demo: installed ## Walk through a shop's life over HTTP: buy, pay, export, erase (VITRINE_URL names a running platform)
	@$(PYTHON) -m deploy.local.demo $(ARGS)

kafka: installed ## Fetch Apache Kafka with Maven and start one node at 127.0.0.1:9092
	@$(PYTHON) -m deploy.local.kafka $(ARGS)

conformance: installed-tests ## Check a participant of yours, in any language, and say what it lacks (ARGS="--help")
	@$(PYTHON) -m conformance $(ARGS)

test: installed-tests ## Run all tests on real PostgreSQL and Apache Kafka (ARGS="unit contract" for some parts)
	@$(PYTHON) -m deploy.local.test $(ARGS)

check: lint types ## Check format, lint, import contracts and types

lint: installed-tests ## Check format, lint and import contracts alone
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/lint-imports

types: installed-tests ## Check types alone
	@.venv/bin/pyright

taxonomy: installed-tests ## Compare the words of our declarations with the Fides language, in an environment of its own
	@.venv/bin/uv venv --quiet --clear --python $(PYTHON) .venv-taxonomy
	@.venv/bin/uv pip sync --quiet --require-hashes --python .venv-taxonomy/bin/python requirements-taxonomy.lock
	@PYTHONPATH=. .venv-taxonomy/bin/python -m tests.contract.taxonomy

format: installed-tests ## Format the code and mend what the linter can
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

replay: installed ## Drive parked events again (ARGS="--help" says which)
	@$(PYTHON) -m libs.common.replay $(ARGS)

backup: installed ## Save every database, while the platform runs (TO=folder ONLY=orders,keyring; ARGS="--help")
	@$(PYTHON) -m deploy.local.backup $(if $(TO),--to "$(TO)") $(if $(KEYRING_TO),--keyring-to "$(KEYRING_TO)") \
		$(if $(DESTRUCTIONS_TO),--destructions-to "$(DESTRUCTIONS_TO)") $(if $(ONLY),--only "$(ONLY)") $(ARGS)

restore: installed ## Bring databases back; nobody who was erased returns (FROM=folder AT=name ONLY=orders; ARGS="--help")
	@$(PYTHON) -m deploy.local.restore $(if $(FROM),--from "$(FROM)") $(if $(AT),--at "$(AT)") \
		$(if $(KEYRING_FROM),--keyring-from "$(KEYRING_FROM)") $(if $(ONLY),--only "$(ONLY)") \
		$(if $(DESTRUCTIONS_FROM),--destructions-from "$(DESTRUCTIONS_FROM)") $(ARGS)

rewrap: installed ## Wrap every key by the present master key, while keyrings run (reads KEYRING_…)
	@$(PYTHON) -m services.privacy.keyring.rewrap

rotate: installed ## Give stores new secrets for their blind indexes, while all runs (STORES="id id"; reads PRIVACY_…)
	@$(PYTHON) -m services.privacy.rotate $(STORES)

officer: installed ## Make an account a privacy officer of the platform (EMAIL=…; ARGS="--dismiss"; reads IDENTITY_…)
	@$(PYTHON) -m services.identity.appoint "$(EMAIL)" $(ARGS)

bench: installed-tests ## Measure, print a table and write bench/results.json
	@$(PYTHON) -m bench $(ARGS)

docs: installed ## Write the AsyncAPI and OpenAPI documents again from the code
	@$(PYTHON) -m deploy.local.documents $(ARGS)

migrate: installed ## Migrate the databases named by ..._MIGRATION_DATABASE_URL (make run does it by itself)
	@$(PYTHON) -m deploy.local.migrate

lock: installed ## Choose newer versions of the dependencies and write the lock files
	@echo uv | $(LOCK) --upgrade --output-file requirements-installer.lock -
	@$(LOCK) --upgrade --extra local --output-file requirements.lock pyproject.toml
	@echo fideslang | $(LOCK) --upgrade --output-file requirements-taxonomy.lock -
	@$(LOCK) --constraint requirements.lock --extra local --extra test --output-file requirements-test.lock pyproject.toml

clean: ## Delete the virtual environment and caches; the data of make run in .vitrine stays
	@rm -rf .venv .venv-taxonomy .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: installed installed-tests
installed:
	@sh deploy/local/bootstrap.sh
installed-tests:
	@sh deploy/local/bootstrap.sh --test

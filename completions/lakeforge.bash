eval "$(COMPLETE=bash lakeforge)"

COMPLETE=fish lakeforge | source

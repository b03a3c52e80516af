$env:COMPLETE = "powershell"; lakeforge | Out-String | Invoke-Expression; Remove-Item Env:\COMPLETE

module holdfast.dev/lab/slow-link

go 1.26.0

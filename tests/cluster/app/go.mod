module stagegate.dev/tests/cluster/app

go 1.24

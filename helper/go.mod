module podbridge/helper

go 1.25

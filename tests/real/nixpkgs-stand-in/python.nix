"/usr/bin/python3"

import logging

# What pydicom logs quotes elements' values and files' paths: names of patients, for all it knows.
logging.getLogger("pydicom").disabled = True

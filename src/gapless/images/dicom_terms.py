"""The standard's own terms: the only header values of a DICOM file that may reach an output (PS3.3, PS3.16 annex L)."""

MODALITY_CODES = frozenset(
    [
        "CR", "CT", "DX", "MR", "US", "PT", "NM", "MG", "XA", "RF", "OT", "SC", "IO", "PX", "ES", "OCT", "OP",
        "SM", "GM", "XC", "ECG", "RTIMAGE", "BI", "TG", "DG", "LS", "MS", "KO", "BMD", "IVUS", "OPT",
    ]
)  # fmt: skip
BODY_PARTS = frozenset(
    [
        "ABDOMEN", "ABDOMENPELVIS", "ADRENAL", "ANKLE", "AORTA", "ARM", "AXILLA", "BACK", "BLADDER", "BRAIN",
        "BREAST", "BRONCHUS", "BUTTOCK", "CALCANEUS", "CALF", "CAROTID", "CEREBELLUM", "CERVIX", "CHEEK", "CHEST",
        "CHESTABDOMEN", "CHESTABDPELVIS", "CLAVICLE", "COCCYX", "COLON", "CORONARYARTERY", "CSPINE", "CTSPINE",
        "DUODENUM", "EAR", "ELBOW", "ESOPHAGUS", "EXTREMITY", "EYE", "FACE", "FEMUR", "FINGER", "FOOT", "FOREARM",
        "GALLBLADDER", "HAND", "HEAD", "HEADNECK", "HEART", "HIP", "HUMERUS", "ILIUM", "JAW", "KIDNEY", "KNEE",
        "LARYNX", "LEG", "LIVER", "LSPINE", "LSSPINE", "LUNG", "MAXILLA", "MEDIASTINUM", "MOUTH", "NECK",
        "NECKCHEST", "NOSE", "ORBIT", "OVARY", "PANCREAS", "PAROTID", "PATELLA", "PELVIS", "PENIS", "PHARYNX",
        "PROSTATE", "RECTUM", "RIB", "SACRUM", "SCALP", "SCAPULA", "SCROTUM", "SHOULDER", "SIJOINT", "SKULL",
        "SPINE", "SPLEEN", "SSPINE", "STERNUM", "STOMACH", "TESTIS", "THIGH", "THORAX", "THUMB", "THYMUS",
        "THYROID", "TIBIA", "TLSPINE", "TMJ", "TOE", "TRACHEA", "TSPINE", "ULNA", "URETER", "URETHRA", "UTERUS",
        "VAGINA", "WHOLEBODY", "WRIST", "ZYGOMA",
    ]
)  # fmt: skip
VIEWS = frozenset(
    [
        "AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO", "CC", "MLO", "ML", "LM", "LAT", "LATERAL", "OBLIQUE",
        "AXIAL", "SAGITTAL", "CORONAL",
    ]
)  # fmt: skip
LATERALITIES = frozenset(
    [
        "L", "R", "B", "U",
    ]
)  # fmt: skip
